"""`tools/make_update`: the command line of those who hold keys. Nothing here runs on a box."""

from __future__ import annotations

import argparse
import getpass
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.bundle import TRUSTED_KEYS
from edge.durable import make_directory, write_file
from edge.errors import ConfigError, RadboxError
from edge.trust import Budget, Offer, Trusted, factory_root, verify_roots
from tools.update.ceremony import (
    NOTHING_BEFORE,
    all_revoked,
    describe,
    open_bundle,
    read_release,
    sign_file,
    write_release,
)
from tools.update.keys import PUBLIC, load_public, load_signer, make_key
from tools.update.release import Release
from tools.update.sign import Count, check_root, count, first_root, next_root, sign_document
from tools.update.stick import check_stick, read_roots

Parsed = argparse.Namespace
EXAMPLES = """\
examples:
  make_update keygen keys/anna-root.key
  make_update root roots/ --root-key anna.pub --root-key ben.pub --root-key chen.pub --release-key ... --key anna.key
  make_update sign roots/1.root.json --key ben.key
  make_update stick models/bundles/chest --out /media/stick --roots roots/ --key dora.key --snapshot-key snap.key
  make_update check /media/stick"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns 0 done, 1 refused, 2 wrong use."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except ConfigError as error:
        sys.stderr.write(f"make_update: {error.message} [{error.code}]\n")
        return 2
    except RadboxError as error:
        sys.stderr.write(f"make_update: {error.message} [{error.code}]\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "make_update", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    keygen = commands.add_parser("keygen", help="make a key: NAME.key (private, encrypted) and NAME.pub")
    keygen.add_argument("path", metavar="NAME.key", type=Path)
    keygen.add_argument("--no-passphrase", action="store_true", help="leave the file unencrypted, for development")
    keygen.set_defaults(run=_keygen)
    root = commands.add_parser("root", help="make the first or the next root in a folder of roots")
    root.add_argument("roots", metavar="ROOTS", type=Path)
    for role in ("root", "release", "snapshot"):
        root.add_argument(
            f"--{role}-key", metavar="PUB", type=Path, action="append", default=[], help="joins this role"
        )
    root.add_argument("--drop", metavar="PUB", type=Path, action="append", default=[], help="leaves every role")
    root.set_defaults(run=_root)
    sign = commands.add_parser("sign", help="add a signature to a root, a targets.json or a snapshot.json")
    sign.add_argument("file", metavar="FILE", type=Path)
    sign.add_argument("--roots", metavar="ROOTS", type=Path, help="folder of roots (default: the one beside FILE)")
    sign.set_defaults(run=_sign)
    stick = commands.add_parser("stick", help="write a release onto a stick or into a folder")
    _add_stick_options(stick)
    for command in (root, sign, stick):
        command.add_argument("--key", metavar="KEY", type=Path, action="append", default=[], help="sign with this key")
    for command in (keygen, root, sign, stick):
        command.add_argument("--passphrase-file", metavar="F", type=Path, help="instead of asking on the terminal")
    check = commands.add_parser("check", help="verify a stick as a box would")
    check.add_argument("stick", metavar="STICK", type=Path)
    check.add_argument("--root", metavar="FILE", type=Path, help="the box's root (default: the one of this software)")
    check.add_argument("--board", metavar="NAME", help="also ask whether a box of this board would take it")
    check.set_defaults(run=_check)
    return parser


def _add_stick_options(stick: argparse.ArgumentParser) -> None:
    stick.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of a signed model bundle")
    stick.add_argument("--out", metavar="STICK", type=Path, required=True, help="mounted stick or folder")
    stick.add_argument("--roots", metavar="ROOTS", type=Path, required=True, help="folder of all roots")
    stick.add_argument("--snapshot-key", metavar="KEY", type=Path, required=True)
    stick.add_argument("--previous", metavar="STICK", type=Path, help="folder of the release before: counters go on")
    stick.add_argument("--epoch", metavar="N", type=int, help="security floor (default: as before, at first 1)")
    stick.add_argument("--board", metavar="NAME", action="append", default=[], help="for these boards only")
    stick.add_argument("--needs", metavar="VERSION", help="lowest radbox version (default: this one)")
    stick.add_argument("--revoke", metavar="WHAT", action="append", default=[], help="stick, bundle or sha256")
    stick.add_argument("--budget", metavar="BOARD=SECONDS,MIB", type=_budget, action="append", default=[])
    stick.add_argument("--words", default="A new version of the model.", help="one sentence for the page")
    stick.add_argument("--trusted-keys", metavar="FILE", type=Path, default=TRUSTED_KEYS, help="who signs bundles")
    stick.set_defaults(run=_stick)


def _keygen(parsed: Parsed) -> None:
    passphrase = b""
    if not parsed.no_passphrase:
        passphrase = _passphrase(parsed, parsed.path)
        if parsed.passphrase_file is None and getpass.getpass("Once more: ").encode() != passphrase:
            raise ConfigError("expected the same passphrase twice, got two different ones")
        if not passphrase:
            raise ConfigError("expected a passphrase, got none; --no-passphrase is for development")
    keyid = make_key(parsed.path, passphrase)
    _say(f"made {parsed.path} (keep it) and {parsed.path.with_suffix(PUBLIC).name} (give it away), key {keyid[:12]}")


def _root(parsed: Parsed) -> None:
    earlier = read_roots(parsed.roots)
    if earlier:
        verify_roots(earlier[0], earlier)
    add = {
        role: [load_public(path) for path in getattr(parsed, f"{name}_key")]
        for role, name in (("root", "root"), ("targets", "release"), ("snapshot", "snapshot"))
    }
    drop = [load_public(path).keyid for path in parsed.drop]
    signed = next_root(earlier[-1], add, drop) if earlier else first_root(add)
    check_root(signed, earlier)
    document = sign_document(signed, [load_signer(path, lambda key: _passphrase(parsed, key)) for path in parsed.key])
    make_directory(parsed.roots)
    path = parsed.roots / f"{signed['version']}.root.json"
    write_file(path, document)
    _say(f"wrote {path}")
    _say_counts(path, [count(document, judge) for judge in (*earlier[-1:], document)])


def _sign(parsed: Parsed) -> None:
    if not parsed.key:
        raise ConfigError("expected --key, got none")
    for line in describe(parsed.file.read_bytes()):
        _say(line)
    for path in parsed.key:
        counts = sign_file(parsed.file, parsed.roots, load_signer(path, lambda key: _passphrase(parsed, key)))
    _say_counts(parsed.file, counts)


def _stick(parsed: Parsed) -> None:
    roots = read_roots(parsed.roots)
    if not roots:
        raise ConfigError("expected 1.root.json in the folder of roots, got none")
    verify_roots(roots[0], roots)
    signers = [load_signer(path, lambda key: _passphrase(parsed, key)) for path in parsed.key]
    snapshot_signer = load_signer(parsed.snapshot_key, lambda key: _passphrase(parsed, key))
    before = read_release(parsed.previous) if parsed.previous else NOTHING_BEFORE
    bundle = open_bundle(parsed.bundle, parsed.trusted_keys)
    epoch = max((offer.epoch for offer in before.offers.values()), default=1)
    release = Release(
        id=bundle.id,
        label=bundle.version,
        version=before.index.versions.get(bundle.id, 0) + 1,
        epoch=epoch if parsed.epoch is None else parsed.epoch,
        boards=tuple(parsed.board) or ("*",),
        needs=parsed.needs or _software(),
        revokes=all_revoked(before, parsed.revoke),
        budgets=dict(parsed.budget),
        words=parsed.words,
    )
    targets = write_release(parsed.out, parsed.bundle, release, before, roots, signers, snapshot_signer)
    signatures = count(targets.read_bytes(), roots[-1])
    _say(f"wrote {parsed.out}")
    _say_counts(targets, [signatures])
    if signatures.enough:
        _say_offers(check_stick(parsed.out, _new_box(roots[0]), None, "").offers)


def _check(parsed: Parsed) -> None:
    root = parsed.root.read_bytes() if parsed.root else factory_root()
    checked = check_stick(parsed.stick, _new_box(root), parsed.board, _software())
    _say(f"stick number {checked.index.version}, {len(checked.roots)} newer roots than the box's")
    _say_offers(checked.offers)


def _new_box(root: bytes) -> Trusted:
    return Trusted(root=root, snapshot_version=0, epoch=0, versions={}, revoked=frozenset())


def _say_counts(path: Path, counts: Sequence[Count]) -> None:
    for one in counts:
        missing = one.threshold - len(one.signed)
        rest = "" if missing <= 0 else f"; {missing} more: make_update sign {path} --key NAME.key"
        _say(f"{path.name}: {len(one.signed)} valid signatures of role {one.role}, {one.threshold} needed{rest}")


def _say_offers(offers: Sequence[Offer]) -> None:
    for offer in offers:
        _say(
            f"{offer.id} version {offer.version} ({offer.label}), epoch {offer.epoch}, boards "
            f"{', '.join(offer.boards)}, {len(offer.files)} files, {offer.size} bytes: verified"
        )


def _passphrase(parsed: Parsed, key: Path) -> bytes:
    if parsed.passphrase_file is not None:
        return bytes(parsed.passphrase_file.read_bytes().rstrip(b"\n"))
    return getpass.getpass(f"Passphrase of {key.name}: ").encode()


def _budget(text: str) -> tuple[str, Budget]:
    """BOARD=SECONDS,MIB for argparse, which turns ValueError into a sentence."""
    board, _, rest = text.partition("=")
    seconds, _, mebibytes = rest.partition(",")
    return board, Budget(float(seconds), int(mebibytes) << 20)


def _software() -> str:
    return importlib.metadata.version("radbox")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
