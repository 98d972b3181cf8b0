"""The page can be left out, and files of a folder go before its own.

Plan: without `ui_enabled` nothing of it is there; with `ui_path` what is in that folder comes from it, what is not from
the page that is built in, and nothing from outside of it, hidden, or of another kind.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from carrel_gateway import problems
from carrel_gateway.page import routes
from carrel_gateway.settings import Settings


def client(data_dir: Path, **more) -> httpx.AsyncClient:
    app = FastAPI(docs_url=None)
    app.state.settings = Settings(_env_file=None, data_dir=data_dir, **more)
    app.include_router(routes.router)
    problems.install(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


@pytest.mark.parametrize("path", ["/", "/account", "/docs", "/page/app.js"])
async def test_no_page_where_none_is_wanted(path, tmp_path):
    async with client(tmp_path, ui_enabled=False) as http:
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
    async with client(tmp_path) as http:
        assert (await http.get(path)).status_code == 200


async def test_files_of_a_folder_go_first(tmp_path):
    folder = tmp_path / "ui"
    (folder / "sub.js").mkdir(parents=True)
    for name in ("index.html", "own.js", ".hidden.js", "key.pem"):
        (folder / name).write_text(f"own {name}")
    (tmp_path / "outside.js").write_text("outside")
    async with client(tmp_path, ui_path=folder) as http:
        assert (await http.get("/")).text == "own index.html"
        own = await http.get("/page/own.js")
        assert (own.text, own.headers["content-type"]) == ("own own.js", "text/javascript; charset=utf-8")
        assert own.headers["content-security-policy"] == routes.POLICY
        assert "Carrel" in (await http.get("/docs")).text
        assert (await http.get("/page/app.js")).status_code == 200
        for name in (".hidden.js", "key.pem", "sub.js", "..%2foutside.js", "%2e%2e%5coutside.js", "own.js%00", "no.js"):
            assert (await http.get(f"/page/{name}")).status_code == 404
