from __future__ import annotations

from django.db import models

from wardkey.django.models import Sealed, SharedModel, WardModel


class Code(SharedModel):
    code = models.CharField(max_length=10, primary_key=True)
    title = models.CharField(max_length=80)

    class Meta:
        db_table = '"hospital"."codes"'


class Tag(WardModel):
    word = models.CharField(max_length=20, unique=True)

    class Meta:
        db_table = "tags"


class Person(WardModel):
    mrn = models.CharField(max_length=20, unique=True)
    name = Sealed(models.CharField(max_length=80), classified="identifier", mask="initial")
    born = Sealed(models.DateField(null=True), classified="quasi")
    balance = Sealed(models.DecimalField(max_digits=9, decimal_places=2, null=True), classified="financial")
    findings = Sealed(models.JSONField(default=dict))
    city = models.CharField(max_length=40, blank=True)
    created = models.DateTimeField(auto_now_add=True)
    tags = models.ManyToManyField(Tag, blank=True)

    class Meta:
        db_table = "persons"


class Visit(WardModel):
    person = models.ForeignKey(Person, models.CASCADE)
    code = models.ForeignKey(Code, models.PROTECT, null=True, blank=True)
    reason = Sealed(models.TextField())
    began = models.DateTimeField()

    class Meta:
        db_table = "visits"
        constraints = [models.UniqueConstraint(fields=["person", "began"], name="visits_once")]
