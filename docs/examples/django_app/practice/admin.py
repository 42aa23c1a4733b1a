from django.contrib import admin

from .models import Appointment, Client


@admin.register(Client)
class ClientAdmin(admin.ModelAdmin):
    list_display = ("number", "name")
    search_fields = ("number",)


admin.site.register(Appointment)
