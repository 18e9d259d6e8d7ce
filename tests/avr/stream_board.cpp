// An Uno that speaks Blynk over its serial port as the vendor's stream class does, written from the protocol's
// description (spec 10 §2): blocking header reads, the incoming frame's id on everything sent while it is handled, at
// most 15 commands a second with the input served meanwhile, login again after a time-out, heartbeat, no way back into
// step. It runs on the Arduino core, so its receive ring is the real one: 64 bytes, the rest falls off.
//
// The sketch: V1 takes a running number, is busy with it for BUSY ms (as with a display) and answers it on V2 from loop();
// V3 (any value) asks for the report "V4 count lost doubled disordered"; V5 n sends the numbers 1 … n on V6; at each
// login V7 has the number of logins.

#include <Arduino.h>
#include <avr/sleep.h>

#ifndef BAUD
#define BAUD 9600
#endif
#ifndef TOKEN
#define TOKEN "00000000000000000000000000000000"
#endif
#ifndef BUSY
#define BUSY 40
#endif
#ifndef HEARTBEAT
#define HEARTBEAT 10      // s; 40 in the newer library
#define TIMEOUT 3000UL    // ms; 6000
#define LOGIN_PAUSE 2000UL
#endif

enum { CMD_RESPONSE = 0, CMD_PING = 6, CMD_BRIDGE = 15, CMD_INTERNAL = 17, CMD_HARDWARE = 20, CMD_LOGIN = 29 };
enum { BUFFER = 256 };

static enum { CONNECTING, CONNECTED, DISCONNECTED } state = DISCONNECTED;
static uint16_t next_id = 1, incoming_id = 0;
static unsigned long last_in, last_out, last_ping, login_at, waiting_since, limit_at;
static bool refused = false;
static uint8_t nesting = 0;
static char buffer[BUFFER + 1];

static unsigned long last_number = 0, count = 0, lost = 0, doubled = 0, disordered = 0;
static unsigned long send_up_to = 0, sent = 0;
static unsigned logins = 0;
static unsigned long answers[64];
static uint8_t answers_in = 0, answers_out = 0;

static void process_input();

static void send(uint8_t command, uint16_t id, const char *body, uint16_t length) {
  if (command != CMD_RESPONSE && command != CMD_LOGIN) {
    // 15 commands a second, serving the input while waiting
    while (millis() - limit_at < 66) {
      if (nesting < 3 && Serial.available()) process_input();
      else sleep_mode();
      if (state != CONNECTED) return;
    }
    limit_at = millis();
  }
  if (id == 0) {
    id = incoming_id ? incoming_id : next_id;
    if (!incoming_id && ++next_id == 0) next_id = 1;
  }
  uint8_t header[5] = {command, (uint8_t)(id >> 8), (uint8_t)id, (uint8_t)(length >> 8), (uint8_t)length};
  Serial.write(header, 5);
  if (command != CMD_RESPONSE && length) Serial.write((const uint8_t *)body, length);
  last_out = millis();
}

static void write_pin(uint8_t pin, const char *value) {
  char body[64];
  int n = snprintf(body, sizeof body, "vw%c%u%c%s", 1, pin, 1, value);
  for (int i = 0; i < n; i++) if (body[i] == 1) body[i] = 0;
  send(CMD_HARDWARE, 0, body, n);
}

static void write_number(uint8_t pin, unsigned long number) {
  char text[12];
  ultoa(number, text, 10);
  write_pin(pin, text);
}

static void on_pin(uint8_t pin, const char *value) {
  unsigned long number = strtoul(value, 0, 10);
  if (pin == 1) {
    if (last_number && number > last_number + 1) lost += number - last_number - 1;
    if (last_number && number == last_number) doubled++;
    if (last_number && number < last_number) disordered++;
    last_number = number;
    count++;
    delay(BUSY);
    answers[answers_in++ % 64] = number;
  } else if (pin == 3) {
    char text[48];
    snprintf(text, sizeof text, "%lu %lu %lu %lu", count, lost, doubled, disordered);
    write_pin(4, text);
  } else if (pin == 5) {
    send_up_to = number;
    sent = 0;
  }
}

static void disconnect() {
  state = DISCONNECTED;
  waiting_since = millis();
}

static void connected() {
  state = CONNECTED;
  next_id = 2;
  static const char info[] = "ver\0" "0.6.1\0" "h-beat\0" "10\0" "buff-in\0" "256\0" "dev\0" "Arduino Uno\0"
                             "cpu\0" "ATmega328P\0" "con\0" "Stream\0" "build\0" "today";
  limit_at = millis() - 100;
  send(CMD_INTERNAL, 0, info, sizeof info);
  write_number(7, ++logins);
}

static bool read_exactly(char *into, uint16_t length) {
  Serial.setTimeout(TIMEOUT);
  return Serial.readBytes(into, length) == length;
}

static void process_input() {
  uint8_t header[5];
  if (!read_exactly((char *)header, 5)) { disconnect(); return; }
  uint16_t id = header[1] << 8 | header[2], length = header[3] << 8 | header[4];
  if (id == 0) { disconnect(); return; }
  last_in = millis();
  if (header[0] == CMD_RESPONSE) {
    if (state == CONNECTING && id == 1) {
      if (length == 200 || length == 4) connected();
      else { refused = length == 9; disconnect(); }
    } else if (length == 5) disconnect();
    return;
  }
  if (length > BUFFER) { disconnect(); return; }
  if (!read_exactly(buffer, length)) { disconnect(); return; }
  buffer[length] = 0;
  if (header[0] == CMD_PING) {
    send(CMD_RESPONSE, id, 0, 200);
  } else if (header[0] == CMD_HARDWARE || header[0] == CMD_BRIDGE) {
    char *pin = buffer + 3, *value = pin + strlen(pin) + 1;
    if (buffer[0] == 'v' && buffer[1] == 'w' && value <= buffer + length) {
      char copy[32];
      strncpy(copy, value, sizeof copy - 1);
      copy[sizeof copy - 1] = 0;
      uint8_t number = atoi(pin);
      uint16_t before = incoming_id;
      incoming_id = id;
      nesting++;
      on_pin(number, copy);
      nesting--;
      incoming_id = before;
    }
  } else if (header[0] != CMD_INTERNAL) {
    disconnect();
  }
}

void setup() {
  set_sleep_mode(SLEEP_MODE_IDLE);
  Serial.begin(BAUD);
#ifdef CHATTER
  Serial.println("Hello from the sketch, free memory 1234");
#endif
  waiting_since = millis() - 60000UL;
}

void loop() {
  unsigned long now = millis();
  if (state == DISCONNECTED) {
    if (now - waiting_since >= (refused ? 9000UL : LOGIN_PAUSE)) {
      refused = false;
      state = CONNECTING;
      login_at = now;
      send(CMD_LOGIN, 1, TOKEN, 32);
    }
    sleep_mode();
    return;
  }
  if (Serial.available()) process_input();
  now = millis(); // what was handled has set its marks later than this turn began
  if (state == CONNECTING && now - login_at > TIMEOUT) disconnect();
  if (state == CONNECTED) {
    if (now - last_in > HEARTBEAT * 1000UL + 3 * TIMEOUT) disconnect();
    else if ((now - last_in > HEARTBEAT * 1000UL || now - last_out > HEARTBEAT * 1000UL) && now - last_ping > TIMEOUT) {
      send(CMD_PING, 0, 0, 0);
      last_ping = now;
    }
    if (state == CONNECTED && answers_out != answers_in) write_number(2, answers[answers_out++ % 64]);
    else if (state == CONNECTED && sent < send_up_to) write_number(6, ++sent);
  }
  if (!Serial.available()) sleep_mode();
}
