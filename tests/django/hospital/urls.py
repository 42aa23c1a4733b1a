from __future__ import annotations

from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("persons", views.persons),
    path("persons/async", views.persons_async),
    path("rendered", views.rendered),
    path("fails", views.fails),
    path("outside", views.outside),
    path("leaves", views.leaves_open),
    path("nothing", views.nothing),
]
