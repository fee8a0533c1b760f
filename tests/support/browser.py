"""Chromium, logged in to a served console: what is clicked and typed is what an operator clicks and types.

Used by the walkthroughs; `console.Console` is the quicker way where no page has to be seen.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.console import PASSWORD, USER, Console
from tests.support.served import Served
from tests.support.services import missing

CHROMIUM = Path("/usr/bin/chromium")


class Browser:
    """An operator at the console. `page` is Playwright's; faults of scripts on its pages are in `faults`."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        if not CHROMIUM.exists():
            missing("Chromium is not installed")
        from playwright.sync_api import sync_playwright

        Console(self._served)  # makes the operator
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        self.page: Any = self._browser.new_page(viewport={"width": 1280, "height": 900})
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(f"{self._served.console}/admin/")
        self.page.fill("#id_username", USER)
        self.page.fill("#id_password", PASSWORD)
        self.page.click("input[type=submit]")
        self.page.wait_for_selector("#user-tools")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, *links: str) -> None:
        """From the first page through links by their texts."""
        self.page.goto(f"{self._served.console}/admin/")
        for link in links:
            self.page.locator("#content-main, #changelist").get_by_role("link", name=link, exact=True).first.click()

    def to_row(self, group: str, text: str) -> None:
        """From an object's page to that of one below it, listed there."""
        row = self.page.locator(f"#{group}-group tr.has_original", has_text=text)
        row.get_by_role("link", name="Change").click()
        self.page.wait_for_load_state("load")

    def enable_plugin(self, name: str, config: str) -> None:
        """On the page of a service or route: add a plugin, choose it, type its configuration, save."""
        page = self.page
        page.locator("#plugins-group .add-row a").click()
        block = page.locator("#plugins-group .inline-related:not(.empty-form)").last
        block.locator("select[name$='-name']").select_option(name)
        block.locator("textarea[name$='-config']").fill(config)
        self.save()

    def save(self) -> None:
        """Press Save; the messages and errors of the page that follows are in `said`."""
        self.page.locator("input[name=_save]").last.click()
        self.page.wait_for_load_state("load")

    @property
    def said(self) -> list[str]:
        """What the page says: its messages, and the errors at its fields."""
        texts: list[str] = self.page.locator(".messagelist li, .errornote, ul.errorlist li").all_inner_texts()
        return texts
