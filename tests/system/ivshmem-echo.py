#!/usr/bin/env python3
"""The smallest ivshmem server: one client, one vector, whose doorbell rings the client itself.

usage: ivshmem-echo.py SOCKET    ends when the client leaves
Protocol (QEMU docs/specs/ivshmem-spec.rst): version, the client's id, -1 with the memory, then its eventfds.
"""
import array
import os
import socket
import sys


def send(client, number, fd=None):
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    client.sendmsg([number.to_bytes(8, "little", signed=True)], rights)


def main():
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(1)
    client, _ = server.accept()
    memory = os.memfd_create("ivshmem")
    os.ftruncate(memory, 1 << 20)
    send(client, 0)
    send(client, 1)
    send(client, -1, memory)
    send(client, 1, os.eventfd(0))
    client.recv(1)


main()
