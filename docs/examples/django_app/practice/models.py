from django.db import models

from wardkey.django.models import Sealed, SharedModel, WardModel


class Treatment(SharedModel):
    """All tenants read these; the name says the schema, which no tenant has in its search_path."""

    code = models.CharField(max_length=10, primary_key=True)
    title = models.CharField(max_length=80)

    class Meta:
        db_table = '"care"."treatments"'

    def __str__(self) -> str:
        return self.title


class Client(WardModel):
    number = models.CharField(max_length=20, unique=True)  # plain: clients are found by it
    name = Sealed(models.CharField(max_length=80), classified="identifier", mask="initial")
    born = Sealed(models.DateField(), classified="quasi")

    class Meta:
        db_table = "clients"

    def __str__(self) -> str:  # the admin writes this into its log: nothing sealed
        return self.number


class Appointment(WardModel):
    client = models.ForeignKey(Client, models.CASCADE)
    treatment = models.ForeignKey(Treatment, models.PROTECT)
    begins = models.DateTimeField()
    finding = Sealed(models.TextField(blank=True))

    class Meta:
        db_table = "appointments"
        ordering = ["begins"]
        constraints = [models.UniqueConstraint(fields=["client", "begins"], name="appointments_once")]

    def __str__(self) -> str:
        return f"{self.client_id} {self.begins:%Y-%m-%d %H:%M}"
