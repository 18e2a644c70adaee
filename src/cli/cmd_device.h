/* The hidden command `device`: this process becomes a device of a split model (cmd_device.c). */
#ifndef LINGUA_CLI_CMD_DEVICE_H
#define LINGUA_CLI_CMD_DEVICE_H

/* argv[0] is skipped, whatever it is. Returns the exit status. */
int cmd_device(int argc, char **argv);

#endif
