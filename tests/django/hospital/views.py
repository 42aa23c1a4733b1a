from __future__ import annotations

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse

from .models import Person


def persons(request: HttpRequest) -> JsonResponse:
    """GET: the names. POST: one more, and with ``fail`` an error after it."""
    if request.method == "POST":
        Person.objects.create(mrn=request.POST["mrn"], name=request.POST["name"])
        if "fail" in request.POST:
            raise ValueError("after the insert")
    return JsonResponse({"names": list(Person.objects.order_by("mrn").values_list("name", flat=True))})


@transaction.non_atomic_requests(using="wards")
async def persons_async(request: HttpRequest) -> JsonResponse:
    @sync_to_async
    @transaction.atomic(using="wards")
    def read() -> list[str]:
        return list(Person.objects.order_by("mrn").values_list("name", flat=True))

    return JsonResponse({"names": await read()})


def rendered(request: HttpRequest) -> TemplateResponse:
    """The template queries, after the view."""
    return TemplateResponse(request, "hospital/persons.html", {"persons": Person.objects.order_by("mrn")})


def fails(request: HttpRequest) -> HttpResponse:
    """An error of the database, with a name among the parameters that no line of code has."""
    Person.objects.create(mrn="1", name="Ann " + "terceS"[::-1], city="x" * 41)
    raise AssertionError


@transaction.non_atomic_requests(using="wards")
def outside(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Person.objects.count()))


@transaction.non_atomic_requests(using="wards")
def leaves_open(request: HttpRequest) -> HttpResponse:
    """Enters a transaction, writes, and never leaves it."""
    transaction.atomic(using="wards").__enter__()
    Person.objects.create(mrn="open", name="Left Open")
    return HttpResponse("left")


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("no statement")
