"""Each request is one transaction, in the ward of its token's tenant. No view says whose rows it is about."""

import json

from django.core.paginator import Paginator
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from .models import Appointment, Client


@csrf_exempt  # no cookie opens a ward: a token in a header does
@require_http_methods(["GET", "POST"])
def clients(request: HttpRequest) -> JsonResponse:
    if request.method == "POST":
        given = json.loads(request.body)
        client = Client(number=given["number"], name=given["name"], born=given["born"])
        client.full_clean()
        client.save()
        return JsonResponse({"number": client.number}, status=201)
    page = Paginator(Client.objects.order_by("number"), 20).get_page(request.GET.get("page"))
    return JsonResponse(
        {"pages": page.paginator.num_pages, "clients": list(page.object_list.values("number", "name"))}
    )


@csrf_exempt
@require_http_methods(["GET", "POST"])
def appointments(request: HttpRequest, number: str) -> JsonResponse:
    client = get_object_or_404(Client, number=number)
    if request.method == "POST":
        given = json.loads(request.body)
        client.appointment_set.create(
            treatment_id=given["treatment"], begins=given["begins"], finding=given.get("finding", "")
        )
    booked = Appointment.objects.filter(client=client).select_related("treatment")
    return JsonResponse(
        {"appointments": [[one.begins, one.treatment.title, one.finding] for one in booked]},
        status=201 if request.method == "POST" else 200,
    )
