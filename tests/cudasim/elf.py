"""Functions in a shared library of Linux x86-64: where they are, and jumps that replace them in this process."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

SYMTAB, DYNSYM, FUNCTION = 2, 11, 2
libc = ctypes.CDLL(None, use_errno=True)


def symbols(path: Path, table: int = SYMTAB) -> dict[str, int]:
    """Return the functions of a symbol table by name: their offset, 0 for those of other libraries."""
    data = path.read_bytes()
    (begin,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, begin + i * size) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != table:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, 24):
            name, info, _, section, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if info & 15 == FUNCTION or not section:
                text = data[names + name : data.index(b"\0", names + name)].decode()
                found[text] = value if section else 0
    return found


def loaded_at(path: Path) -> int:
    """Load a library and return its first address."""
    ctypes.CDLL(str(path))
    lines = Path("/proc/self/maps").read_text().splitlines()
    return min(int(line.partition("-")[0], 16) for line in lines if line.endswith(str(path.resolve())))


def jump(address: int) -> bytes:
    return b"\xff\x25\0\0\0\0" + struct.pack("<Q", address)  # jmp [rip], followed by the address


def jump_with(argument: int, address: int) -> bytes:
    return b"\x48\xbf" + struct.pack("<Q", argument) + jump(address)  # mov rdi, argument


def overwrite(address: int, code: bytes) -> None:
    """Write code into this process's memory; the file stays as it is."""
    page = address & ~0xFFF
    read_execute, write = 5, 2
    for rights in (read_execute | write, read_execute):
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(address + len(code) - page), rights):
            raise OSError(ctypes.get_errno(), "mprotect")
        if rights & write:
            ctypes.memmove(address, code, len(code))
