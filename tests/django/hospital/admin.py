from __future__ import annotations

from django.contrib import admin

from .models import Code, Person, Tag, Visit

admin.site.register([Code, Tag, Visit])


@admin.register(Person)
class PersonAdmin(admin.ModelAdmin):
    list_display = ("mrn", "name", "born")
    search_fields = ("mrn",)
    list_filter = ("city",)
    date_hierarchy = "created"
