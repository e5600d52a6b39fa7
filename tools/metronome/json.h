/*
 * Output for programs.
 */
#ifndef METRONOME_JSON_H
#define METRONOME_JSON_H

void json_string(const char *text); /* in its quotes, to standard output */

#endif
