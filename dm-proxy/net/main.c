/*
 * metronome-net FD WORDS [REPORT]: the user-mode network behind one guest's network card. FD is a SOCK_SEQPACKET socket
 * whose other end is QEMU's, WORDS are those of QEMU's -netdev user. Started by the launcher beside QEMU; ends when
 * QEMU does. REPORT is a pipe: closed when the network runs, else it gets one line that says why not.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "network.h"

static struct net_options options;

static bool check_tftp(const char *folder, char *error, size_t error_bytes)
{
    struct stat st;

    if (!folder || (!stat(folder, &st) && S_ISDIR(st.st_mode)))
        return true;
    snprintf(error, error_bytes, "user network: no such folder: %s", folder);
    return false;
}

int main(int argc, char **argv)
{
    char error[512] = "user network: cannot start";
    struct network *network = NULL;
    int report = argc > 3 ? atoi(argv[3]) : 2;

    if (argc < 3) {
        fprintf(stderr, "usage: metronome-net FD WORDS [REPORT]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (net_parse(&options, argv[2], error, sizeof error) && check_tftp(options.tftp, error, sizeof error))
        network = network_new(atoi(argv[1]), &options, error, sizeof error);
    if (!network) {
        dprintf(report, "%s", error);
        return 1;
    }
    if (report != 2)
        close(report);
    network_run(network);
    network_free(network);
    return 0;
}
