import django.db.models.deletion
from django.db import migrations, models

import wardkey.django.models
import wardkey.django.tables


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Client",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=20, unique=True)),
                (
                    "name",
                    wardkey.django.models.Sealed(
                        models.CharField(max_length=80), classified="identifier", mask="initial"
                    ),
                ),
                ("born", wardkey.django.models.Sealed(models.DateField(), classified="quasi")),
            ],
            options={
                "db_table": "clients",
            },
            bases=(wardkey.django.tables.Ward, models.Model),
        ),
        migrations.CreateModel(
            name="Treatment",
            fields=[
                ("code", models.CharField(max_length=10, primary_key=True, serialize=False)),
                ("title", models.CharField(max_length=80)),
            ],
            options={
                "db_table": '"care"."treatments"',
            },
            bases=(wardkey.django.tables.Shared, models.Model),
        ),
        migrations.CreateModel(
            name="Appointment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("begins", models.DateTimeField()),
                (
                    "finding",
                    wardkey.django.models.Sealed(models.TextField(blank=True), classified="clinical"),
                ),
                (
                    "client",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="practice.client"),
                ),
                (
                    "treatment",
                    models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="practice.treatment"),
                ),
            ],
            options={
                "db_table": "appointments",
                "ordering": ["begins"],
                "constraints": [
                    models.UniqueConstraint(fields=("client", "begins"), name="appointments_once")
                ],
            },
            bases=(wardkey.django.tables.Ward, models.Model),
        ),
    ]
