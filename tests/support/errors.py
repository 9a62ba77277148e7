# What the probes of tests/observed.rs and tests/witness.rs share; it stands before each of them.
import errno, socket, struct

IP_MTU_DISCOVER, IP_RECVERR, OMIT, PROBE = 10, 11, 5, 3
ICMP_ORIGIN = 2


def first_error(s):
    """Takes what is in the socket's queue of errors: of the first ICMP message type, code, sender and MTU; words for an
    error of the own kernel; None where there is none."""
    try:
        _, control, _, _ = s.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return None
    for level, kind, data in control:
        if level == socket.SOL_IP and kind == IP_RECVERR:
            number, origin, what, code, _, info, _ = struct.unpack_from("=IBBBBII", data)
            if origin != ICMP_ORIGIN:
                return f"own kernel: {errno.errorcode[number]}"
            return what, code, socket.inet_ntoa(data[20:24]), info
    return None


