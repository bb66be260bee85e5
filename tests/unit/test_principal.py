"""What restricts a caller: models and addresses."""

import ipaddress

import pytest

from lingpai.principal import Principal


def principal(*, models=(), networks=(), role="member") -> Principal:
    allowed = tuple(ipaddress.ip_network(network) for network in networks)
    return Principal("usr_1", "ada", role, key_id="k", models=models, allowed_ips=allowed)


@pytest.mark.parametrize(
    ("models", "model", "may"),
    [
        ((), "anything", True),
        (("acme/shout",), "acme/shout", True),
        (("acme/shout",), "acme/shouter", False),
        (("acme/shout",), "ACME/shout", False),
        (("acme/*",), "acme/shout", True),
        (("acme/*",), "acme/", True),
        (("acme/*",), "acme", False),
        (("acme/*",), "acmeevil/x", False),
        (("*",), "anything", True),
        (("a/x", "b/*"), "b/y", True),
        (("a*b",), "axb", False),
    ],
)
def test_models_of_a_key(models, model, may):
    assert principal(models=models).may_call(model) is may


@pytest.mark.parametrize(
    ("networks", "address", "may"),
    [
        ((), "", True),
        ((), "10.0.0.1", True),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.7",), "10.0.0.7", True),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), "::ffff:11.0.0.1", False),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "10.0.0.1", False),
        (("10.0.0.0/8", "::1"), "::1", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("0.0.0.0/0",), "::1", False),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.0/8",), "localhost", False),
        (("10.0.0.0/8",), "010.0.0.1", False),
    ],
)
def test_addresses_of_a_key(networks, address, may):
    assert principal(networks=networks).may_come_from(address) is may


def test_only_the_role_makes_an_administrator():
    assert principal(role="admin").is_admin
    assert not principal(role="member").is_admin


def test_principal_does_not_show_the_gateways_slot():
    caller = principal()
    caller.account = "what the gateway worked out"

    assert "worked out" not in repr(caller)


def test_caller_without_project_or_client_has_none_of_their_limits():
    caller = principal()

    assert (caller.project_id, caller.project_limits) == ("", ())
    assert (caller.client_id, caller.client_name, caller.client_limits) == (None, None, ())
