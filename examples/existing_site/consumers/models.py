"""Households and what their meters say."""

from django.db import models


class Household(models.Model):
    """A consumer of energy."""

    name = models.CharField(max_length=100)
    meter = models.CharField(max_length=20, unique=True)

    class Meta:
        ordering = ["meter"]

    def __str__(self):
        return f"{self.name} ({self.meter})"


class Reading(models.Model):
    """What a meter said on a day."""

    household = models.ForeignKey(Household, on_delete=models.CASCADE, related_name="readings")
    day = models.DateField()
    kwh = models.PositiveIntegerField()

    class Meta:
        ordering = ["-day", "household"]

    def __str__(self):
        return f"{self.household.meter} {self.day}: {self.kwh}"
