"""A proxy that looks into TLS, as companies have them: it answers for every host, with what the stand-in says.

`python inspecting_proxy.py CERTIFICATE KEY`, in a container; prints the first line of each request that it gets.
"""

import asyncio
import ssl
import sys

PORT = 3128
STANDIN = ("standin", 8080)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a `CONNECT`, speak TLS as whichever host was asked for, and pass everything on."""
    request = await reader.readuntil(b"\r\n\r\n")
    print(request.decode().splitlines()[0], flush=True)  # noqa: T201 (its log)
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await writer.drain()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[1:])
    await writer.start_tls(context)
    answers, requests = await asyncio.open_connection(*STANDIN)
    await asyncio.gather(copy(reader, requests), copy(answers, writer))


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write whatever is read, until there is no more."""
    while chunk := await reader.read(2**16):
        writer.write(chunk)
        await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until the end."""
    async with await asyncio.start_server(serve, "0.0.0.0", PORT) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
