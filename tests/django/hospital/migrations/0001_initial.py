import django.db.models.deletion
from django.db import migrations, models

import wardkey.django.models
import wardkey.django.tables


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Code",
            fields=[
                ("code", models.CharField(max_length=10, primary_key=True, serialize=False)),
                ("title", models.CharField(max_length=80)),
            ],
            options={
                "db_table": '"hospital"."codes"',
            },
            bases=(wardkey.django.tables.Shared, models.Model),
        ),
        migrations.CreateModel(
            name="Tag",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("word", models.CharField(max_length=20, unique=True)),
            ],
            options={
                "db_table": "tags",
            },
            bases=(wardkey.django.tables.Ward, models.Model),
        ),
        migrations.CreateModel(
            name="Person",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("mrn", models.CharField(max_length=20, unique=True)),
                (
                    "name",
                    wardkey.django.models.Sealed(
                        models.CharField(max_length=80), classified="identifier", mask="initial"
                    ),
                ),
                ("born", wardkey.django.models.Sealed(models.DateField(null=True), classified="quasi")),
                (
                    "balance",
                    wardkey.django.models.Sealed(
                        models.DecimalField(decimal_places=2, max_digits=9, null=True), classified="financial"
                    ),
                ),
                (
                    "findings",
                    wardkey.django.models.Sealed(models.JSONField(default=dict), classified="clinical"),
                ),
                ("city", models.CharField(blank=True, max_length=40)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("tags", models.ManyToManyField(blank=True, to="hospital.tag")),
            ],
            options={
                "db_table": "persons",
            },
            bases=(wardkey.django.tables.Ward, models.Model),
        ),
        migrations.CreateModel(
            name="Visit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", wardkey.django.models.Sealed(models.TextField(), classified="clinical")),
                ("began", models.DateTimeField()),
                (
                    "code",
                    models.ForeignKey(
                        blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, to="hospital.code"
                    ),
                ),
                (
                    "person",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="hospital.person"),
                ),
            ],
            options={
                "db_table": "visits",
                "constraints": [models.UniqueConstraint(fields=("person", "began"), name="visits_once")],
            },
            bases=(wardkey.django.tables.Ward, models.Model),
        ),
    ]
