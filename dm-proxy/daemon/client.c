#include <stdio.h>

#include "daemon/client.h"
#include "daemon/packet.h"

bool client_send(int client, const void *bytes, size_t n)
{
    return client >= 0 && packet_send(client, bytes, n, NULL, 0, MSG_DONTWAIT);
}

bool client_tell(int client, enum event_type type, int status, const char *text)
{
    struct event e = {.type = type, .status = (uint32_t)status};

    snprintf(e.text, sizeof e.text, "%s", text);
    return client_send(client, &e, sizeof e);
}
