"""Django's admin over faces: its own tables are of another alias, the rows of the token's tenant."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from tests.support.database import Database
from wardkey.django import tokens

from .hospital.models import Person, Tag, Visit

FORM = {
    "mrn": "17",
    "name": "Ann",
    "born": "1960-01-02",
    "balance": "1.50",
    "findings": "[1]",
    "city": "Rome",
}


@pytest.fixture
def browser(site: Database) -> Client:
    User.objects.all().delete()
    user = User.objects.create_superuser("root")
    client = Client(headers={"authorization": f"Bearer {site.token('acme')}"})
    client.force_login(user)
    return client


def post(browser: Client, path: str, data: dict[str, Any]) -> None:
    answer = browser.post(f"/admin/hospital/{path}", data)
    assert answer.status_code == 302, answer.content.decode()


def test_the_way_through_the_admin(browser: Client, site: Database) -> None:
    post(browser, "tag/add/", {"word": "blue"})
    with tokens.use(site.token("acme")), transaction.atomic(using="wards"):
        tag = Tag.objects.get()
    post(browser, "person/add/", {**FORM, "tags": [tag.pk]})
    with tokens.use(site.token("acme")), transaction.atomic(using="wards"):
        person = Person.objects.get()
        assert (person.name, person.findings, list(person.tags.all())) == ("Ann", [1], [tag])
    listed = browser.get("/admin/hospital/person/", {"q": "17", "city": "Rome"}).content.decode()
    assert "Ann" in listed and "1 person" in listed
    assert 'value="Ann"' in browser.get(f"/admin/hospital/person/{person.pk}/change/").content.decode()
    twice = browser.post("/admin/hospital/person/add/", FORM)
    assert twice.status_code == 200 and b"already exists" in twice.content
    post(browser, f"person/{person.pk}/change/", {**FORM, "name": "Anne"})
    visit = {"person": person.pk, "reason": "cough", "began_0": "2026-03-01", "began_1": "12:00"}
    assert f'<option value="{person.pk}">' in browser.get("/admin/hospital/visit/add/").content.decode()
    post(browser, "visit/add/", visit)
    asked = browser.get(f"/admin/hospital/person/{person.pk}/delete/").content.decode()
    assert "Visit object" in asked
    chosen = {"action": "delete_selected", "_selected_action": [person.pk], "post": "yes"}
    post(browser, "person/", chosen)
    with tokens.use(site.token("acme")), transaction.atomic(using="wards"):
        assert not Person.objects.exists() and not Visit.objects.exists()
        tag.delete()
    assert LogEntry.objects.count() == 5
    assert not LogEntry.objects.filter(object_repr__contains="Ann").exists()


def test_pages_that_read_no_face_need_no_token(browser: Client) -> None:
    assert browser.get("/admin/", headers={"authorization": ""}).status_code == 200
    assert browser.get("/admin/hospital/person/", headers={"authorization": ""}).status_code == 401
    assert Client().get("/admin/login/").status_code == 200
