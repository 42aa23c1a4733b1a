from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("clients", views.clients),
    path("clients/<number>/appointments", views.appointments),
]
