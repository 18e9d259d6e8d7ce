/* A simulated Uno whose serial port is this program's standard input and output.
 *
 *     uno FIRMWARE.elf BAUD
 *
 * Bytes come out when the UART has sent them and go in one by one at the line's speed, in real time, as over a wire:
 * nobody asks the board whether it is ready. Ends when its input ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/avr_uart.h>

static avr_t *avr;
static avr_irq_t *uart_in;
static unsigned char waiting[65536];
static unsigned head, tail;
static avr_cycle_count_t byte_cycles;
static int out;

static void from_board(struct avr_irq_t *irq, uint32_t value, void *param) {
  unsigned char byte = value;
  while (write(out, &byte, 1) < 0 && errno == EAGAIN) usleep(100);
}

static avr_cycle_count_t to_board(avr_t *a, avr_cycle_count_t when, void *param) {
  if (head != tail) avr_raise_irq(uart_in, waiting[tail++ % sizeof waiting]);
  return when + byte_cycles;
}

static void no_sleep(avr_t *a, avr_cycle_count_t how_long) {}

static double wall(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  setpriority(PRIO_PROCESS, 0, -15); /* a board does not stop because a test machine is busy; takes root */
  out = dup(1);
  dup2(2, 1); /* the simulator talks */
  elf_firmware_t firmware = {{0}};
  if (elf_read_firmware(argv[1], &firmware)) return 1;
  avr = avr_make_mcu_by_name("atmega328p");
  if (!avr) return 1;
  avr_init(avr);
  avr->frequency = firmware.frequency = 16000000;
  avr->log = LOG_NONE;
  avr_load_firmware(avr, &firmware);
  avr->sleep = no_sleep;
  uint32_t flags = 0;
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), from_board, 0);
  uart_in = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  byte_cycles = 16000000ull * 10 / atoi(argv[2]);
  avr_cycle_timer_register(avr, byte_cycles, to_board, 0);
  fcntl(0, F_SETFL, O_NONBLOCK);
  double start = wall();
  for (;;) {
    avr_cycle_count_t until = avr->cycle + 16000; /* a millisecond */
    while (avr->cycle < until) {
      int state = avr_run(avr);
      if (state == cpu_Done || state == cpu_Crashed) return 3;
    }
    while (head - tail < sizeof waiting - 1) {
      unsigned char byte;
      ssize_t n = read(0, &byte, 1);
      if (n == 0) return 0;
      if (n < 0) break;
      waiting[head++ % sizeof waiting] = byte;
    }
    double ahead = avr->cycle / 16e6 - (wall() - start);
    if (ahead > 0) usleep(ahead * 1e6);
    else if (ahead < -1) start -= ahead; /* the machine was busy: do not race to catch up */
  }
}
