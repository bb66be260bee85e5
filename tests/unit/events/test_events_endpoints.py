"""Webhooks in the settings: what stops the start, and that secrets are not shown."""

import pytest
from event_fakes import KEY, SECRET

from lingpai.events.endpoints import WebhookSettingsError, endpoints_from, recipients
from lingpai.events.settings import EventsSettings, WebhookSettings

URL = "https://hooks.example:8443/T0/token-in-the-path?x=1"


def problem(*settings: WebhookSettings, **environment: str) -> str:
    with pytest.raises(WebhookSettingsError) as caught:
        endpoints_from(settings, environment)
    return str(caught.value)


def test_webhook_has_its_keys_and_a_name_that_does_not_show_the_address():
    (endpoint,) = endpoints_from([WebhookSettings(url=URL, secret_env="S")], {"S": SECRET})

    assert endpoint.keys == (KEY,)
    assert endpoint.name.startswith("hooks.example-")
    assert "token-in-the-path" not in repr(endpoint)
    assert repr(KEY) not in repr(endpoint)


def test_without_webhooks_there_is_nobody_to_send_to():
    assert endpoints_from(EventsSettings().webhooks, {}) == ()
    assert set(recipients(()).values()) == {()}


def test_types_choose_what_is_sent():
    settings = [
        WebhookSettings(url="http://a.example", secret_env="S"),
        WebhookSettings(url="http://b.example", secret_env="S", types=("limit.threshold",)),
    ]

    first, second = endpoints_from(settings, {"S": SECRET})

    assert recipients((first, second))["limit.threshold"] == (first.name, second.name)
    assert recipients((first, second))["backend.down"] == (first.name,)


@pytest.mark.parametrize("secret", [None, "", "whsec_", "whsec_c2hvcnQ=", "plain"])
def test_missing_empty_or_short_secret_stops_the_start_and_names_the_key(secret):
    environment = {} if secret is None else {"HOOK_SECRET": secret}

    words = problem(WebhookSettings(url=URL, secret_env="HOOK_SECRET"), **environment)

    assert "`events.webhooks[0].secret_env`" in words
    assert "HOOK_SECRET" in words
    assert "c2hvcnQ" not in words


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks.example", "ftp://hooks.example", "https://", "https:///path", "file:///etc/passwd",
        "https://hooks.example:port/", "https://hooks.example/a b", "https://hooks.example/\r\nx: y",
        "https://hooks.example/#part", "https://[::1", "https://hööks.example/",
    ],
)  # fmt: skip
def test_address_that_is_none_stops_the_start(url):
    good = WebhookSettings(url="https://good.example", secret_env="S")

    words = problem(good, WebhookSettings(url=url, secret_env="S"), S=SECRET)

    assert "`events.webhooks[1].url`" in words


def test_address_with_a_password_stops_the_start_and_is_not_shown():
    words = problem(WebhookSettings(url="https://me:hidden@hooks.example", secret_env="S"), S=SECRET)

    assert "`events.webhooks[0].url`" in words
    assert "hidden" not in words


def test_address_twice_stops_the_start():
    webhook = WebhookSettings(url=URL, secret_env="S")

    assert "`events.webhooks[1].url`" in problem(webhook, webhook, S=SECRET)


def test_unknown_type_stops_the_start_and_the_nearest_is_named():
    words = problem(WebhookSettings(url=URL, secret_env="S", types=("limit.treshold",)), S=SECRET)

    assert "`events.webhooks[0].types`" in words
    assert "Did you mean `limit.threshold`?" in words
