from django.db import migrations


def load(apps, schema_editor):
    treatments = apps.get_model("practice", "Treatment").objects.using(schema_editor.connection.alias)
    treatments.create(code="D1110", title="Cleaning")
    treatments.create(code="D2740", title="Crown")


class Migration(migrations.Migration):
    dependencies = [("practice", "0001_initial")]
    operations = [migrations.RunPython(load, migrations.RunPython.noop)]
