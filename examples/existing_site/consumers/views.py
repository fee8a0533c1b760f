"""Pages for people, and two addresses that partners call with signed requests."""

import csv

from django.contrib.auth.decorators import login_not_required
from django.db.models import Sum
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from hmac_gateway.decorators import hmac_required

from .models import Household, Reading


@login_not_required
def front(request):
    """For everyone, and kept by the page cache."""
    return render(request, "front.html", {"number": Household.objects.count()})


def households(request):
    """For who has logged in."""
    return render(request, "households.html", {"households": Household.objects.all()})


@login_not_required
def export(request):
    """Protected by PROTECT: the middleware has asked for a signature before this runs."""
    response = HttpResponse(content_type="text/csv")
    rows = csv.writer(response)
    rows.writerow(["meter", "day", "kwh"])
    rows.writerows(Reading.objects.values_list("household__meter", "day", "kwh"))
    return response


@hmac_required(config={"signed_headers": ["@request-target", "date"], "allowed_algorithms": ["hmac-sha256"]})
def totals(request):
    """Protected where it stands."""
    total = Reading.objects.aggregate(kwh=Sum("kwh"))["kwh"] or 0
    return JsonResponse({"for": request.hmac.consumer.username, "kwh": total})
