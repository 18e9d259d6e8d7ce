// Boards (spec 04 §15) and what a newcomer has to type to connect each kind of device.

import { t } from "../i18n.js";

export const BOARDS = ["ESP8266", "ESP32 Dev Board", "NodeMCU", "WeMos D1 mini", "WeMos D1", "Arduino UNO", "Arduino Nano", "Arduino Mega", "Arduino Leonardo", "Arduino MKR1000", "Arduino Due",
  "Arduino Micro", "Arduino Mini", "Arduino Pro Micro", "Arduino Pro Mini", "Arduino Yun", "Arduino Zero", "Arduino 101", "Raspberry Pi 3 B", "Raspberry Pi 2/A+/B+", "Raspberry Pi A/B (Rev2)",
  "Raspberry Pi B (Rev1)", "Particle Photon", "Particle Electron", "Particle Core", "Orange Pi", "BBC Micro:bit", "Onion Omega", "STM32F103C Blue Pill", "WiPy", "Teensy 3", "SparkFun ESP8266 Thing",
  "SparkFun Blynk Board", "SparkFun Photon RedBoard", "LinkIt ONE", "NanoPi", "Intel Edison", "Intel Galileo", "Digistump Oak", "Digistump Digispark", "Espruino Pico", "RedBear Duo", "TI CC3200-LaunchXL", "chipKIT Uno32", "Generic Board"];

export const CONNECTIONS = () => [["WI_FI", "Wi-Fi"], ["ETHERNET", "Ethernet"], ["USB", "USB"], ["GSM", "GSM"], ["BLE", "Bluetooth LE"], ["BLUETOOTH", "Bluetooth"]];

const wifi = (board, header) => (x) => `#define BLYNK_PRINT Serial
#include <${board}>
#include <${header}>

char auth[] = "${x.token}";
char ssid[] = "YourNetwork";
char pass[] = "YourPassword";

BLYNK_WRITE(V1) {                 // a widget on V1 was used
  int value = param.asInt();
}

void setup() {
  Serial.begin(115200);
  Blynk.begin(auth, ssid, pass, "${x.host}", ${x.port});
}

void loop() {
  Blynk.run();
}
`;

/** Ready-made lines: [name, function of { token, host, port, web } -> text]. */
export const SKETCHES = [
  ["ESP8266", wifi("ESP8266WiFi.h", "BlynkSimpleEsp8266.h")],
  ["ESP32", wifi("WiFi.h", "BlynkSimpleEsp32.h")],
  ["Ethernet", (x) => `#define BLYNK_PRINT Serial
#include <SPI.h>
#include <Ethernet.h>
#include <BlynkSimpleEthernet.h>

char auth[] = "${x.token}";

void setup() {
  Serial.begin(9600);
  Blynk.begin(auth, "${x.host}", ${x.port});
}

void loop() {
  Blynk.run();
}
`],
  ["USB", (x) => `#include <BlynkSimpleStream.h>

char auth[] = "${x.token}";

void setup() {
  Serial.begin(9600);
  Blynk.begin(Serial, auth);
}

void loop() {
  Blynk.run();
}

/* On the computer with the USB cable:
   python3 blynk-ser.py -c /dev/ttyUSB0 -s ${x.host} -p ${x.port}  */
`],
  ["Python", (x) => `# pip install blynklib
import blynklib

blynk = blynklib.Blynk("${x.token}", server="${x.host}", port=${x.port}, heartbeat=10)

@blynk.handle_event("write V1")
def write_handler(pin, value):
    print(f"V{pin} = {value[0]}")

while True:
    blynk.run()
`],
  ["JavaScript", (x) => `// npm install blynk-library
const Blynk = require("blynk-library");

const blynk = new Blynk.Blynk("${x.token}", {
  connector: new Blynk.TcpClient({ addr: "${x.host}", port: ${x.port} }),
});
const v1 = new blynk.VirtualPin(1);
v1.on("write", (value) => console.log("V1 =", value[0]));
`],
  ["curl", (x) => `# write V1
curl "${x.web}/${x.token}/update/V1?value=42"

# read V1
curl "${x.web}/${x.token}/get/V1"
`],
];

export const hint = () => t("Upload it, open the serial monitor, and the device appears online here.");
