"""ContextTokens: the wire form to the letter, and every way in which one is not good."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contextunity.core.tokens import (
    MAX_TOKEN_LENGTH,
    ContextToken,
    Keyring,
    ProjectBinding,
    TokenError,
    TokenKeyError,
    VerifiedToken,
    ed25519_private_key,
    ed25519_public_key,
    mint,
)

_SECRET, _OTHER = b"0123456789abcdef" * 2, b"fedcba9876543210" * 2
_KID = "my_project:hmac-001"
_PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
_KEYS = Keyring(hmac={_KID: _SECRET}, ed25519={"my_project:ed25519-001": _PRIVATE.public_key()})
_SHARED = Keyring(hmac={"*:hmac-001": _SECRET})
_TOKEN = ContextToken(
    token_id="t-1",
    permissions=("worker:execute", "worker:read"),
    provenance=("commerce:mint",),
    allowed_tenants=("my_project",),
    exp_unix=2_000_000_000.5,
    project_binding=ProjectBinding(project_id="my_project"),
)
_NOW = 1_900_000_000.0


def _signed(payload: bytes | str | dict[str, Any], *, kid: str = _KID, secret: bytes = _SECRET) -> str:
    """A token as any other program makes one, good or not."""
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    text = base64.b64encode(payload.encode() if isinstance(payload, str) else payload).decode()
    signature = hmac.new(secret, text.encode("ascii"), hashlib.sha256).digest()
    return f"{kid}.{text}.{base64.b64encode(signature).decode()}"


def _refused(text: str | bytes, keys: Keyring = _KEYS, *, now: float = _NOW) -> str:
    with pytest.raises(TokenError) as caught:
        keys.verify(text, now=now)
    return caught.value.reason


def test_a_token_of_another_program_is_read() -> None:
    # Computed with openssl: `printf %s PAYLOAD | openssl dgst -sha256 -hmac SECRET -binary | base64`.
    payload = "eyJ0b2tlbl9pZCI6ICJ0LTEiLCAicGVybWlzc2lvbnMiOiBbIndvcmtlcjpyZWFkIl0sICJwcm92ZW5hbmNlIjogW119"
    signature = "pegSLjyztJK7MhC9YJW6iR//rvGLdPaGygPxBqh2kRE="
    verified = _KEYS.verify(f"my_project:hmac-001.{payload}.{signature}")
    assert verified == VerifiedToken(
        token=ContextToken(token_id="t-1", permissions=("worker:read",)), kid=_KID, project_id="my_project"
    )
    assert _signed(base64.b64decode(payload)) == f"my_project:hmac-001.{payload}.{signature}"


def test_a_minted_token_is_what_another_program_reads() -> None:
    kid, payload, signature = mint(_TOKEN, kid=_KID, secret=_SECRET).rsplit(".", 2)
    assert kid == _KID
    assert base64.b64decode(signature) == hmac.new(_SECRET, payload.encode(), hashlib.sha256).digest()
    assert json.loads(base64.b64decode(payload)) == {
        "token_id": "t-1",
        "permissions": ["worker:execute", "worker:read"],
        "provenance": ["commerce:mint"],
        "allowed_tenants": ["my_project"],
        "exp_unix": 2_000_000_000.5,
        "project_binding": {"kind": "project", "project_id": "my_project"},
    }


@pytest.mark.parametrize("kid", [_KID, "my_project:ed25519-001"])
def test_what_is_minted_is_verified(kid: str) -> None:
    options: dict[str, Any] = {"secret": _SECRET} if "hmac" in kid else {"private_key": _PRIVATE}
    text = mint(_TOKEN, kid=kid, **options)
    assert _KEYS.verify(text, now=_NOW) == VerifiedToken(token=_TOKEN, kid=kid, project_id="my_project")
    assert _KEYS.verify(text.encode(), now=_NOW).token == _TOKEN


def test_a_project_may_have_dots_and_colons() -> None:
    kid = "eu.shop:blue:hmac-001"
    assert _SHARED.verify(_SHARED.mint(ContextToken(token_id="t"), kid=kid)).kid == kid


def test_a_token_ends_when_it_says() -> None:
    text = _signed({"token_id": "t", "exp_unix": 100})
    assert _KEYS.verify(text, now=99.9).token.exp_unix == 100
    assert _refused(text, now=100.0) == "expired"
    assert _refused(text, now=101.0) == "expired"
    # Zero is a time, and no word for "never".
    assert _refused(_signed({"token_id": "t", "exp_unix": 0}), now=1.0) == "expired"
    assert _KEYS.verify(_signed({"token_id": "t", "exp_unix": 0}), now=-1.0).token.exp_unix == 0
    assert _KEYS.verify(_signed({"token_id": "t", "exp_unix": None}), now=1e12).token.exp_unix is None
    with pytest.raises(TokenError, match="expired"):
        _KEYS.verify(text)


def test_a_token_begins_when_it_says() -> None:
    text = _signed({"token_id": "t", "nbf": 100})
    assert _refused(text, now=99.9) == "not_yet_valid"
    assert _KEYS.verify(text, now=100.0).token.nbf == 100
    assert _KEYS.verify(text, now=100.1).token.nbf == 100
    assert _refused(_signed({"token_id": "t", "nbf": 0}), now=-1.0) == "not_yet_valid"
    assert _KEYS.verify(_signed({"token_id": "t", "nbf": None}), now=0.0).token.nbf is None
    assert _refused(_signed({"token_id": "t", "nbf": 200, "exp_unix": 100}), now=150.0) == "expired", "never good"
    assert _refused(_signed({"token_id": "t", "nbf": 2e9}, secret=_OTHER)) == "bad_signature"
    with pytest.raises(TokenError, match="not valid yet"):
        _KEYS.verify(_signed({"token_id": "t", "nbf": 1e12}))


def test_what_a_token_says_beyond_what_is_known_is_left_out() -> None:
    text = _signed(
        {"token_id": "t", "x": {"y": [1]}, "project_binding": {"kind": "platform", "z": 1}, "iat": "2033-01-01"}
    )
    assert _KEYS.verify(text).token == ContextToken(
        token_id="t", project_binding=ProjectBinding(kind="platform"), iat="2033-01-01"
    )


def test_a_misspelt_field_is_an_error_when_making_a_token() -> None:
    with pytest.raises(ValidationError, match="permisions"):
        ContextToken.model_validate({"token_id": "t", "permisions": ["worker:read"]})


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("[]", id="list"),
        pytest.param('"t"', id="string"),
        pytest.param("null", id="null"),
        pytest.param("{", id="cut"),
        pytest.param("{}", id="no token_id"),
        pytest.param({"token_id": ""}, id="empty token_id"),
        pytest.param({"token_id": 7}, id="number as token_id"),
        pytest.param({"token_id": None}, id="null token_id"),
        pytest.param('{"token_id": "a", "token_id": "b"}', id="key twice"),
        pytest.param('{"token_id": "a", "x": {"y": 1, "y": 2}}', id="key twice, deeper"),
        pytest.param({"token_id": "t", "permissions": "worker:read"}, id="permissions no list"),
        pytest.param({"token_id": "t", "permissions": None}, id="permissions null"),
        pytest.param({"token_id": "t", "permissions": [1]}, id="permission no string"),
        pytest.param({"token_id": "t", "allowed_tenants": "a"}, id="tenants no list"),
        pytest.param({"token_id": "t", "allowed_tenants": {"a": 1}}, id="tenants an object"),
        pytest.param({"token_id": "t", "exp_unix": True}, id="bool as time"),
        pytest.param({"token_id": "t", "exp_unix": "9999999999"}, id="string as time"),
        pytest.param('{"token_id": "t", "exp_unix": NaN}', id="NaN"),
        pytest.param({"token_id": "t", "nbf": "2033-01-01"}, id="text as beginning"),
        pytest.param({"token_id": "t", "nbf": False}, id="bool as beginning"),
        pytest.param('{"token_id": "t", "nbf": -Infinity}', id="beginning at no time"),
        pytest.param('{"token_id": "t", "exp_unix": Infinity}', id="Infinity"),
        pytest.param('{"token_id": "t", "exp_unix": 1e999}', id="too large a float"),
        pytest.param(f'{{"token_id": "t", "exp_unix": 1{"0" * 400}}}', id="too large an integer"),
        pytest.param(f'{{"token_id": "t", "exp_unix": 1{"0" * 5000}}}', id="more digits than Python reads"),
        pytest.param({"token_id": "t", "project_binding": "my_project"}, id="binding no object"),
        pytest.param({"token_id": "t", "project_binding": {"kind": "galaxy"}}, id="binding of another kind"),
        pytest.param({"token_id": "t", "user_id": "a\nb"}, id="line end"),
        pytest.param({"token_id": "t", "user_id": "a\0b"}, id="NUL"),
        pytest.param('{"token_id": "t", "user_id": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"token_id": "\xff"}', id="not UTF-8"),
        pytest.param('{"token_id": "t"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'\xef\xbb\xbf{"token_id": "t"}', id="byte order mark"),
        pytest.param("[" * 10_000, id="deep"),
        pytest.param('{"a":' * 2_000 + "1" + "}" * 2_000, id="deep object"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_payload_that_does_not_fit_is_malformed_although_signed(payload: Any) -> None:
    assert _refused(_signed(payload)) == "malformed"


def _with(text: str, part: int, change: Any) -> str:
    parts = text.rsplit(".", 2)
    parts[part] = change(parts[part])
    return ".".join(parts)


_GOOD = _signed({"token_id": "t-12"})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="one dot"),
        pytest.param("..", id="two dots"),
        pytest.param("a.b", id="two parts"),
        pytest.param(_GOOD.replace("my_project:hmac-001", ""), id="no kid"),
        pytest.param(" " + _GOOD, id="blank before"),
        pytest.param(_GOOD + "\n", id="line end after"),
        pytest.param(_with(_GOOD, 2, lambda signature: signature.rstrip("=")), id="no padding"),
        pytest.param(_with(_GOOD, 2, lambda signature: signature + "===="), id="more padding"),
        pytest.param(_with(_GOOD, 2, lambda signature: signature[:-2] + "B="), id="stray bits"),
        pytest.param(_with(_GOOD, 2, lambda _: ""), id="no signature"),
        pytest.param(_with(_GOOD, 2, lambda signature: signature[:9] + "\n" + signature[9:]), id="line end within"),
        pytest.param(_with(_GOOD, 2, lambda _: "-_" * 22), id="URL-safe"),
        pytest.param("ü" + _GOOD, id="not ASCII"),
        pytest.param("\ud800" + _GOOD, id="half a surrogate pair"),
        pytest.param("\0" + _GOOD, id="NUL"),
        pytest.param(b"\xff\xfe" + _GOOD.encode(), id="bytes"),
        pytest.param("a" * MAX_TOKEN_LENGTH + _GOOD, id="too long"),
        pytest.param("a." * 10_000_000, id="far too long"),
    ],
)
def test_a_text_that_is_no_token_is_malformed(text: str | bytes) -> None:
    assert _refused(text) == "malformed"


def test_a_payload_in_another_base64_is_malformed_although_signed() -> None:
    for text in ("eyJ0b2tlbl9pZCI6InQifR==", "eyJ0b2tlbl9pZCI6InQifQ", "eyJ0b2tl\nbl9pZCI6InQifQ==", ""):
        signature = base64.b64encode(hmac.new(_SECRET, text.encode(), hashlib.sha256).digest()).decode()
        assert _refused(f"{_KID}.{text}.{signature}") == "malformed"


def test_a_token_changed_anywhere_is_refused() -> None:
    good = _signed({"token_id": "t", "permissions": ["worker:read"]})
    for keys in (_KEYS, _SHARED):
        start = 0 if keys is _KEYS else good.index(".")
        for place in range(start, len(good)):
            for bit in (1, 4):
                changed = good[:place] + chr(ord(good[place]) ^ bit) + good[place + 1 :]
                assert _refused(changed, keys) in ("malformed", "unknown_kid", "bad_signature"), place


def test_a_token_of_another_key_is_refused() -> None:
    assert _refused(_signed({"token_id": "t"}, secret=_OTHER)) == "bad_signature"
    assert _refused(_signed({"token_id": "t"}, kid="my_project:hmac-002")) == "unknown_kid"
    assert _refused(_signed({"token_id": "t"}, kid="other:hmac-001")) == "unknown_kid"
    assert _refused(_signed({"token_id": "t"}, kid="my_project:hmac-001 ")) == "malformed"
    assert _refused(_signed({"token_id": "t"}, kid="*:hmac-001"), _SHARED) == "unknown_kid"
    assert _refused(_signed({"token_id": "t"}, kid="*:hmac-001"), Keyring()) == "unknown_kid"


def test_the_signature_is_looked_at_before_what_the_token_says() -> None:
    assert _refused(_signed("{", secret=_OTHER)) == "bad_signature"
    assert _refused(_signed({"token_id": "t", "exp_unix": 1}, secret=_OTHER)) == "bad_signature"


def test_an_unknown_kid_takes_the_work_of_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = list[bytes]()
    digest = hmac.digest

    def counted(secret: bytes, message: bytes, name: Any) -> bytes:
        digests.append(message)
        return digest(secret, message, name)

    monkeypatch.setattr(hmac, "digest", counted)
    for kid in (_KID, "other:hmac-001", "my_project:hmac-009", "my_project:rsa-001", "*:hmac-001", "nonsense"):
        text = _signed({"token_id": "t"}, kid=kid, secret=_OTHER)
        digests.clear()
        assert _refused(text) == ("bad_signature" if kid == _KID else "unknown_kid")
        assert digests == [text.rsplit(".", 2)[1].encode()]


def test_no_key_is_taken_for_one_of_another_algorithm() -> None:
    public = _PRIVATE.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    raw = public.public_bytes_raw()
    for secret in (pem, raw, base64.b64encode(raw)):
        # Signed with what everybody knows: the public key.
        assert _refused(_signed({"token_id": "t"}, kid="my_project:ed25519-001", secret=secret)) == "bad_signature"
        assert _refused(_signed({"token_id": "t"}, kid="my_project:hmac-001", secret=secret)) == "bad_signature"
        assert _refused(_signed({"token_id": "t"}, kid="my_project:none-001", secret=secret)) == "unknown_kid"
    good = mint(ContextToken(token_id="t"), kid="my_project:ed25519-001", private_key=_PRIVATE)
    assert _refused(good.replace("ed25519", "hmac")) == "bad_signature"
    assert _refused(good, Keyring(hmac={_KID: _SECRET})) == "unknown_kid"


def test_an_ed25519_token_changed_anywhere_is_refused() -> None:
    good = mint(ContextToken(token_id="t"), kid="my_project:ed25519-001", private_key=_PRIVATE)
    for place in range(len(good)):
        changed = good[:place] + chr(ord(good[place]) ^ 1) + good[place + 1 :]
        assert _refused(changed) in ("malformed", "unknown_kid", "bad_signature"), place


def test_keys_are_rotated_by_number() -> None:
    old = mint(_TOKEN, kid="my_project:hmac-001", secret=_SECRET)
    new = mint(_TOKEN, kid="my_project:hmac-002", secret=_OTHER)
    both = Keyring(hmac={"my_project:hmac-001": _SECRET, "my_project:hmac-002": _OTHER})
    assert both.verify(old, now=_NOW).token == both.verify(new, now=_NOW).token
    after = Keyring(hmac={"my_project:hmac-002": _OTHER})
    assert _refused(old, after) == "unknown_kid"
    assert after.verify(new, now=_NOW).kid == "my_project:hmac-002"


def test_a_key_of_its_own_wins_over_that_of_all_projects() -> None:
    keys = Keyring(hmac={"*:hmac-001": _SECRET, "mine:hmac-001": _OTHER})
    assert keys.verify(_signed({"token_id": "t"}, kid="mine:hmac-001", secret=_OTHER)).project_id == "mine"
    assert _refused(_signed({"token_id": "t"}, kid="mine:hmac-001"), keys) == "bad_signature"
    assert keys.verify(_signed({"token_id": "t"}, kid="yours:hmac-001")).token.token_id == "t"


def test_a_key_of_all_projects_vouches_for_one_that_the_token_is_bound_to() -> None:
    free = _signed({"token_id": "t"})
    assert _SHARED.verify(free).project_id == ""
    # The kid is not signed: with a key of all projects, its bearer may write another project into it.
    assert _SHARED.verify(free.replace("my_project", "other")).project_id == ""
    bound = _signed({"token_id": "t", "project_binding": {"kind": "project", "project_id": "my_project"}})
    assert _SHARED.verify(bound).project_id == "my_project"
    assert _refused(bound.replace("my_project", "other", 1), _SHARED) == "wrong_project"
    assert _KEYS.verify(free).project_id == "my_project"
    assert _refused(_signed({"token_id": "t", "project_binding": {"project_id": ""}})) == "wrong_project"


def test_no_error_shows_a_token_or_a_key() -> None:
    texts = [_signed({"token_id": "t", "user_id": 7, "exp_unix": "do-not-show"}), _signed('"do-not-show'), _GOOD[:-9]]
    texts += [_signed({"token_id": "t"}, secret=_OTHER), _signed({"token_id": "t", "exp_unix": 1})]
    for text in texts:
        with pytest.raises(TokenError) as caught:
            _KEYS.verify(text)
        told = f"{caught.value} {caught.value!r}"
        assert "do-not-show" not in told
        assert not any(part in told for part in text.split("."))
    for show in (repr(_KEYS), repr(_KEYS.__dict__)):
        assert _SECRET.decode() not in show


@given(st.one_of(st.text(), st.binary(), st.text(alphabet=".=+/aAbQ: \0\n")))
def test_nothing_but_a_token_error_is_raised(text: str | bytes) -> None:
    with pytest.raises(TokenError):
        _KEYS.verify(text)


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["token_id", "permissions", "exp_unix", "iat", "x"]), inner)
            ),
        ).map(json.dumps),
    )
)
def test_nothing_but_a_token_error_is_raised_for_signed_payloads(payload: bytes | str) -> None:
    with contextlib.suppress(TokenError):
        assert _KEYS.verify(_signed(payload), now=0).token.token_id


_texts = st.text(st.characters(exclude_categories=("Cc", "Cs")))


@given(
    st.builds(
        ContextToken,
        token_id=_texts.filter(bool),
        permissions=st.lists(_texts, max_size=5).map(tuple),
        allowed_tenants=st.none() | st.lists(_texts, max_size=5).map(tuple),
        exp_unix=st.none() | st.floats(min_value=_NOW, exclude_min=True, allow_infinity=False),
        user_id=st.none() | _texts,
    )
)
def test_every_token_comes_back_as_it_was(token: ContextToken) -> None:
    assert _KEYS.verify(_KEYS.mint(token, kid=_KID), now=_NOW).token == token


@pytest.mark.parametrize(
    ("kid", "options", "told"),
    [
        pytest.param("my_project", {"secret": _SECRET}, "must be of the form PROJECT:hmac-001", id="no number"),
        pytest.param("*:hmac-001", {"secret": _SECRET}, "must be of the form PROJECT:hmac-001", id="all projects"),
        pytest.param("my project:hmac-001", {"secret": _SECRET}, "must be of the form", id="blank"),
        pytest.param(
            "other:hmac-001",
            {"secret": _SECRET},
            "of another project than the token is bound to",
            id="bound to another",
        ),
        pytest.param(_KID, {"secret": b"short"}, "has 5 bytes, and needs 32", id="short secret"),
        pytest.param(_KID, {}, "needs exactly one key", id="no key"),
        pytest.param(
            _KID,
            {"private_key": _PRIVATE},
            "needs exactly one key, of its algorithm hmac",
            id="key of another algorithm",
        ),
        pytest.param(_KID, {"secret": _SECRET, "private_key": _PRIVATE}, "needs exactly one key", id="two keys"),
        pytest.param(
            "my_project:ed25519-001", {"secret": _SECRET}, "of its algorithm ed25519", id="secret for Ed25519"
        ),
    ],
)
def test_what_cannot_be_minted(kid: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(TokenKeyError, match=told):
        mint(_TOKEN, kid=kid, **options)


def test_a_token_that_nobody_would_read_is_not_minted() -> None:
    with pytest.raises(TokenKeyError, match=f"the maximum is {MAX_TOKEN_LENGTH}"):
        mint(ContextToken(token_id="t" * MAX_TOKEN_LENGTH), kid=_KID, secret=_SECRET)


def test_a_token_of_just_the_maximum_length_is_minted_and_read() -> None:
    long = ContextToken(token_id="t" * 12_000)
    # A byte of the payload takes 4/3 characters of base64; what the kid and padding leave over, the kid fills.
    text = mint(long, kid=_KID, secret=_SECRET)
    kid = "p" * (MAX_TOKEN_LENGTH - len(text)) + _KID
    text = mint(long, kid=kid, secret=_SECRET)
    assert len(text) == MAX_TOKEN_LENGTH
    keys = Keyring(hmac={kid: _SECRET})
    assert keys.verify(text).token == long
    with pytest.raises(TokenError, match="longer than"):
        keys.verify("p" + text)


def test_a_token_does_not_change_once_it_is_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _TOKEN.permissions = ("worker:admin",)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        _TOKEN.project_binding.project_id = "other"  # type: ignore[misc, union-attr]


@pytest.mark.parametrize("cls", [ContextToken, ProjectBinding])
def test_what_a_token_may_not_hold_is_not_in_the_error(cls: type[ContextToken | ProjectBinding]) -> None:
    with pytest.raises(ValidationError) as caught:
        cls.model_validate({"token_id": "t", "secret_word": "hunter2"})
    assert "secret_word" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_keyring_mints_with_the_secret_that_it_verifies_with() -> None:
    keys = Keyring(hmac={"*:hmac-001": _SECRET, "mine:hmac-001": _OTHER})
    assert keys.mint(_TOKEN, kid=_KID) == mint(_TOKEN, kid=_KID, secret=_SECRET)
    token = ContextToken(token_id="t")
    assert keys.mint(token, kid="mine:hmac-001") == mint(token, kid="mine:hmac-001", secret=_OTHER)
    for kid in ("mine:hmac-002", "mine:ed25519-001", "*:hmac-001", "mine"):
        with pytest.raises(TokenKeyError, match=r"known keys: \*:hmac-001, mine:hmac-001"):
            keys.mint(token, kid=kid)


def test_every_fault_of_a_keyring_is_named_and_no_key_shown() -> None:
    public = _PRIVATE.public_key()
    with pytest.raises(TokenKeyError) as caught:
        Keyring(
            hmac={"a:hmac-001": _SECRET, "b:hmac-001": _SECRET, "c:ed25519-001": _OTHER, "d:hmac-001": b"do-not-show"},
            ed25519={"a:hmac-002": public},
        )
    assert caught.value.faults == (
        "kid 'c:ed25519-001' must be of the form PROJECT:hmac-001, or *:hmac-001 for every project",
        "kid 'a:hmac-002' must be of the form PROJECT:ed25519-001, or *:ed25519-001 for every project",
        "the secret of d:hmac-001 has 11 bytes, and needs 32; create one with `contextworker token secret`",
        "a:hmac-001 and b:hmac-001 have the same key; give each its own, or use one key for all projects under *",
    )


def test_public_keys_are_read_as_pem_or_base64() -> None:
    public = _PRIVATE.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    raw = base64.b64encode(public.public_bytes_raw()).decode()
    assert ed25519_public_key(f"\n{pem}\n") == ed25519_public_key(f" {raw}\n") == public
    rsa = generate_private_key(65537, 1024).public_key()
    wrong = {
        "another algorithm than Ed25519: RSAPublicKey": rsa.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        "got a private key": _PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "not a public key": pem[:60],
    }
    for told, text in wrong.items():
        with pytest.raises(TokenKeyError, match=told):
            ed25519_public_key(text)
    for text in ("", raw[:-4], "ü", "\ud800", f"{raw}{raw}", "-----BEGIN \ud800"):
        with pytest.raises(TokenKeyError, match="not a public key"):
            ed25519_public_key(text)


def test_private_keys_are_read_as_pem() -> None:
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    assert ed25519_private_key(_PRIVATE.private_bytes(*form, NoEncryption())).public_key() == _PRIVATE.public_key()
    rsa = generate_private_key(65537, 1024)
    for told, pem in {
        "has a password": _PRIVATE.private_bytes(*form, BestAvailableEncryption(b"password")),
        "another algorithm than Ed25519: RSAPrivateKey": rsa.private_bytes(*form, NoEncryption()),
        "not a private key in PEM": b"\xff",
    }.items():
        with pytest.raises(TokenKeyError, match=told):
            ed25519_private_key(pem)


def test_cryptography_is_loaded_for_ed25519_alone() -> None:
    code = (
        "import sys; from contextunity.core.tokens import *; keys = Keyring(hmac={'a:hmac-001': b's' * 32});"
        "keys.verify(keys.mint(ContextToken(token_id='t'), kid='a:hmac-001')); assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
