#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

static const char *model_of(const char *name, const char *where)
{
    static const char *const names[][2] = {
        {"virtio", "virtio-net-pci"}, {"virtio-net", "virtio-net-pci"}, {"e1000e", "e1000e"}};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i][0]))
            return names[i][1];
    if (!*name || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != strlen(name))
        bad_input("%s: '%s' is no model of a network card: e1000, rtl8139, virtio-net", where, name);
    return name;
}

static const char *mac_of(const char *text, const char *where)
{
    unsigned b[6];
    int end = 0;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || text[end])
        bad_input("%s: '%s' is no MAC address", where, text);
    if (b[0] & 1)
        bad_input("%s: '%s' is a group's MAC address, not a card's", where, text);
    return text;
}

static const char *bridge_of(const char *name)
{
    char *net = NULL;

    return asprintf(&net, "bridge,br=%s", name) < 0 ? "none" : net;
}

static void take_word(struct request_nic *n, const char *word, const char *where)
{
    if (!strchr(word, '='))
        n->model = model_of(word, where);
    else if (!strncmp(word, "model=", 6))
        n->model = model_of(word + 6, where);
    else if (!strncmp(word, "mac=", 4))
        n->mac = mac_of(word + 4, where);
    else if (!strncmp(word, "bridge=", 7))
        n->net = bridge_of(word + 7);
    else if (strcmp(word, "type=ioemu"))
        bad_input("%s: unknown word '%s': known are model=, mac=, bridge=, net=", where, word);
}

/* "MODEL,mac=...,net=..." and xl's "model=...,mac=...,bridge=..."; net= takes all that follows. */
void nic_add(struct request *r, const char *spec, const char *where)
{
    struct request_nic *n = &r->nic[r->nics];
    char *rest = strdup(spec), *word;

    if (r->nics == REQUEST_MAX_NICS)
        bad_input("%s: a guest has at most %d network cards", where, REQUEST_MAX_NICS);
    *n = (struct request_nic){"e1000", "", "user"};
    while (rest && *rest) {
        rest += strspn(rest, " ");
        if (!strncmp(rest, "net=", 4)) {
            n->net = rest + 4;
            break;
        }
        word = strsep(&rest, ",");
        word[strcspn(word, " ")] = 0;
        if (*word)
            take_word(n, word, where);
    }
    r->nics++;
}
