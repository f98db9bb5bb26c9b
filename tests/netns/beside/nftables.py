"""What the agent asks of Debian's binding to libnftables, which the tests' Python does not see: the library itself."""

from __future__ import annotations

import ctypes

_JSON = 1 << 4  # nftables/libnftables.h


class Nftables:
    def __init__(self) -> None:
        self._library = library = ctypes.CDLL("libnftables.so.1")
        library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def cmd(self, text: str) -> tuple[int, str, str]:
        code = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context)
        return code, output.decode(), self._library.nft_ctx_get_error_buffer(self._context).decode()

    def set_json_output(self, on: bool) -> None:  # noqa: FBT001 - the binding's signature
        self._library.nft_ctx_output_set_flags(self._context, _JSON if on else 0)
