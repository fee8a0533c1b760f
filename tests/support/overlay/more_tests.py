"""The example's site on Django's test clients, as its owner would test it: `manage.py test more_tests`."""

import base64
import hashlib
import time
from urllib.parse import quote

from django.apps import apps
from django.test import TestCase

from hmac_gateway.client import sign_headers

BIG = b"x" * 3_000_000


def signed(method, target, **more):
    return sign_headers(method, f"http://testserver{target}", key_id="client-1", secret="my-hmac-secret", **more)


class Tests(TestCase):
    def setUp(self):
        consumers, credentials = (apps.get_model(f"hmac_consumers.{name}") for name in ("Consumer", "Credential"))
        self.consumer = consumers.objects.create(username="partner")
        consumers.objects.create(username="guest")
        self.key = credentials(consumer=self.consumer, plugin="hmac-auth", identifier="client-1")
        self.key.set_secret("my-hmac-secret")
        self.key.save()
        basic = credentials(consumer=self.consumer, plugin="basic-auth", identifier="partner")
        basic.set_secret("pass")
        basic.save()

    def check(self, response, status, **wanted):
        self.assertEqual(response.status_code, status, response.content)
        for name, value in wanted.items():
            self.assertEqual(response.json()[name], value)

    def test_client(self):
        self.check(self.client.get("/seen/x"), 401)
        self.check(self.client.get("/seen/x", headers=signed("GET", "/seen/x")), 200, consumer="partner")
        headers = signed("POST", "/body/x", body=BIG)
        post = {"content_type": "application/octet-stream", "headers": headers}
        self.check(self.client.post("/body/x", BIG, **post), 200, sha256=hashlib.sha256(BIG).hexdigest())
        self.check(self.client.post("/body/x", BIG[1:], **post), 401)
        target = "/seen/a%2Fb?x=%20"
        headers = signed("GET", target)
        # The client decodes the target as servers without RAW_URI do, and nobody can tell what was signed.
        self.check(self.client.get(target, headers=headers), 401)
        self.check(self.client.get(target, headers=headers, RAW_URI=target), 200, a=" ", path="/seen/a/b")
        headers = signed("GET", "/seen/%C3%A4?x=%20")
        self.check(self.client.get("/seen/%C3%A4?x=%20", headers=headers), 200, a=" ", path="/seen/ä")
        self.check(self.client.get("/seen/../x", headers=signed("GET", "/seen/../x")), 400)
        headers = signed("GET", "/seen/x")
        twice = headers | {"Authorization": f"{headers['Authorization']},{headers['Authorization']}"}
        self.check(self.client.get("/seen/x", headers=twice), 400)

    async def test_async_client(self):
        self.check(await self.async_client.get("/seen/x"), 401)
        self.check(await self.async_client.get("/seen/x", headers=signed("GET", "/seen/x")), 200, consumer="partner")
        headers = signed("POST", "/body/x", body=BIG)
        post = {"content_type": "application/octet-stream", "headers": headers}
        response = await self.async_client.post("/body/x", BIG, **post)
        self.check(response, 200, sha256=hashlib.sha256(BIG).hexdigest())
        self.check(await self.async_client.post("/body/x", BIG[1:], **post), 401)
        headers = signed("GET", "/seen/a%20b?x=%20")
        response = await self.async_client.get("/seen/a%20b?x=%20", headers=headers)
        self.check(response, 200, a=" ", path="/seen/a b")
        self.check(await self.async_client.get("/seen/../x", headers=signed("GET", "/seen/../x")), 400)

    def test_one_query_a_look(self):
        for where in ("/seen/x", "/decorated/", "/drf/"):
            headers = signed("GET", where)
            self.check(self.client.get(where, headers=headers), 200)
            time.sleep(0.3)
            with self.assertNumQueries(1):
                self.check(self.client.get(where, headers=headers), 200)
            with self.assertNumQueries(0):
                self.check(self.client.get(where, headers=headers), 200)

    def test_own_writes_are_seen_at_once(self):
        headers = signed("GET", "/seen/x")
        self.check(self.client.get("/seen/x", headers=headers), 200)
        self.key.enabled = False
        self.key.save()
        self.check(self.client.get("/seen/x", headers=headers), 401)
        self.key.delete()
        self.check(self.client.get("/seen/x", headers=headers), 401)

    def test_csrf(self):
        client = self.client_class(enforce_csrf_checks=True)
        basic = {"authorization": "Basic " + base64.b64encode(b"partner:pass").decode()}
        self.check(client.get("/basic/", headers=basic), 200, consumer="partner")
        self.assertEqual(client.post("/basic/", headers=basic).status_code, 403)
        self.check(client.get("/guest/"), 200, consumer="guest")
        self.assertEqual(client.post("/guest/").status_code, 403)
        self.check(client.post("/guest/", headers=signed("POST", "/guest/")), 200, consumer="partner")
        self.check(client.post("/seen/x", headers=signed("POST", "/seen/x")), 200)

    def test_login_required_is_not_asked_of_who_signed(self):
        self.assertEqual(self.client.get("/households/").status_code, 302)
        for where in ("/export/readings.csv", "/totals/", "/api/readings/"):
            self.assertEqual(self.client.get(where, headers=signed("GET", where)).status_code, 200, where)
        user = apps.get_model("auth.User").objects.create_superuser("boss", "", "pass")
        self.client.force_login(user)
        page = self.client.get("/api/readings/", headers={"accept": "text/html"})
        self.assertContains(page, "Readings")
        self.assertEqual(self.client.get("/export/readings.csv").status_code, 401)

    def test_names_beyond_ascii(self):
        where = "/seen/" + quote("größe")
        self.check(self.client.get(where, headers=signed("GET", where)), 200, path="/seen/größe")
