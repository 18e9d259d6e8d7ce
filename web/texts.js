// The table of texts: English, which is the key | German | Spanish. What is not here is the same in all three.
export const TEXTS = Object.fromEntries(
	`
/pin/ is replaced by the value.|/pin/ wird durch den Wert ersetzt.|/pin/ se sustituye por el valor.
/pin/ is the value, /pin.#/ one digit after the point, /pin.##/ two: /pin.#/ °C|/pin/ ist der Wert, /pin.#/ mit einer Nachkommastelle, /pin.##/ mit zwei: /pin.#/ °C|/pin/ es el valor, /pin.#/ con un decimal, /pin.##/ con dos: /pin.#/ °C
/pin/ is the value, /pin[0]/ its first part|/pin/ ist der Wert, /pin[0]/ sein erster Teil|/pin/ es el valor, /pin[0]/ su primera parte
/pin0/ and /pin1/ are the two values|/pin0/ und /pin1/ sind die beiden Werte|/pin0/ y /pin1/ son los dos valores
a button|ein Knopf|un botón
a dimmer|ein Dimmer|un regulador
A mail with a link is on its way. Open it, or copy the token out of it here.|Eine Mail mit einem Link ist unterwegs. Öffne ihn, oder kopiere das Token daraus hierher.|Va en camino un correo con un enlace. Ábrelo, o copia aquí su token.
A mail with a link to set a new password is on its way.|Eine Mail mit einem Link für ein neues Passwort ist unterwegs.|Va en camino un correo con un enlace para una contraseña nueva.
a page with widgets|eine Seite mit Widgets|una página con widgets
A paused project neither forwards values nor runs rules and timers.|Ein angehaltenes Projekt leitet keine Werte weiter; Regeln und Zeitschalter ruhen.|Un proyecto en pausa no reenvía valores; reglas y temporizadores descansan.
a pin|ein Pin|un pin
a pin's value …|der Wert eines Pins …|el valor de un pin …
A project is a screen of widgets with the devices behind them. Make your first one.|Ein Projekt ist eine Seite von Widgets mit den Geräten dahinter. Lege dein erstes an.|Un proyecto es una pantalla de widgets con los dispositivos detrás. Crea el primero.
A report costs 2,900 energy.|Ein Bericht kostet 2.900 Energie.|Un informe cuesta 2.900 de energía.
A tag stands for several devices: one button switches them all.|Ein Etikett steht für mehrere Geräte: Ein Knopf schaltet sie alle.|Una etiqueta representa varios dispositivos: un botón los maneja todos.
A tile is|Eine Kachel ist|Una tesela es
Accelerometer|Beschleunigung|Acelerómetro
Account and energy|Konto und Energie|Cuenta y energía
Account|Konto|Cuenta
Action|Aktion|Acción
active|aktiv|activa
Active|Aktiv|Activo
Add a new line to what is sent|Zeilenende mitsenden|Añadir fin de línea al enviar
Add a template in edit mode, and choose its devices.|Füge beim Bearbeiten eine Vorlage hinzu und wähle ihre Geräte.|Añade una plantilla al editar y elige sus dispositivos.
Add a template|Vorlage hinzufügen|Añadir plantilla
Add a widget|Widget hinzufügen|Añadir widget
Add an action|Aktion hinzufügen|Añadir acción
Add an action.|Füge eine Aktion hinzu.|Añade una acción.
Add widgets|Widgets hinzufügen|Añadir widgets
Add {0}|{0} hinzufügen|Añadir {0}
Add|Hinzufügen|Añadir
Address|Adresse|Dirección
Addresses of the pictures|Adressen der Bilder|Direcciones de las imágenes
Advanced: the device writes at any place|Erweitert: Das Gerät schreibt an beliebige Stellen|Avanzado: el dispositivo escribe donde quiera
Alignment|Ausrichtung|Alineación
All minutes of {0} (.csv.gz)|Alle Minuten von {0} (.csv.gz)|Todos los minutos de {0} (.csv.gz)
Allow notifications|Benachrichtigungen erlauben|Permitir notificaciones
Allow the profile and install it under Settings → General → VPN and device management, then switch it on under General → About → Certificate trust settings.|Erlaube das Profil und installiere es unter Einstellungen → Allgemein → VPN und Geräteverwaltung; schalte es unter Allgemein → Info → Zertifikatsvertrauenseinstellungen ein.|Permite el perfil e instálalo en Ajustes → General → VPN y gestión de dispositivos; actívalo en General → Información → Confianza de certificados.
Also when a device goes offline|Auch wenn ein Gerät offline geht|También si un dispositivo se desconecta
also when a device goes offline|auch wenn ein Gerät offline geht|también si un dispositivo se desconecta
An action is not complete.|Eine Aktion ist unvollständig.|Una acción está incompleta.
and|und|y
Arrows instead of + and –|Pfeile statt + und –|Flechas en vez de + y –
As added|Wie hinzugefügt|Según se añadieron
at a time|zu einer Zeit|a una hora
At most so many characters|Höchstens so viele Zeichen|Máximo de caracteres
at {0} set {1} to {2}|um {0} {1} auf {2} setzen|a las {0} poner {1} a {2}
At {0}, {1}: {2}|Um {0}, {1}: {2}|A las {0}, {1}: {2}
Automatic|Automatisch|Automático
Automation|Automatik|Automatización
average|Mittel|media
Back to the login|Zurück zur Anmeldung|Volver al acceso
Back|Zurück|Atrás
Background|Hintergrund|Fondo
Barometer|Barometer|Barómetro
Bars|Balken|Barras
between two dates|zwischen zwei Tagen|entre dos fechas
Blue|Blau|Azul
Bluetooth serial|Bluetooth seriell|Bluetooth serie
Blynk library|Blynk-Bibliothek|Biblioteca Blynk
Board|Platine|Placa
Body|Inhalt|Cuerpo
Bridge|Brücke|Puente
Brightness|Helligkeit|Brillo
Browsers do not play rtsp; use the camera's MJPEG or HLS address.|Browser spielen kein rtsp; nimm die MJPEG- oder HLS-Adresse der Kamera.|Los navegadores no reproducen rtsp; usa la dirección MJPEG o HLS de la cámara.
Button|Knopf|Botón
By name|Nach Namen|Por nombre
By name, backwards|Nach Namen, rückwärts|Por nombre, al revés
By template|Nach Vorlage|Por plantilla
By template, backwards|Nach Vorlage, rückwärts|Por plantilla, al revés
Cancel|Abbrechen|Cancelar
Celsius|Celsius|Celsius
change a widget|ein Widget ändern|cambiar un widget
Change the password|Passwort ändern|Cambiar la contraseña
change {0} of {1} to {2}|{0} von {1} auf {2} ändern|cambiar {0} de {1} a {2}
changes|sich ändert|cambia
Chart|Diagramm|Gráfico
Choose a day.|Wähle einen Tag.|Elige un día.
choose a device|Gerät wählen|elige un dispositivo
Choose a pin.|Wähle einen Pin.|Elige un pin.
Choose the pins|Pins wählen|Elegir los pines
Choose the time zone|Zeitzone wählen|Elegir la zona horaria
choose …|wählen …|elegir …
chosen in {0}|gewählt in {0}|elegido en {0}
Clock for devices|Uhr für Geräte|Reloj para dispositivos
Close|Schließen|Cerrar
Code of this project|Code dieses Projekts|Código de este proyecto
Code|Code|Código
Colour of the open tab|Farbe des offenen Reiters|Color de la pestaña abierta
Colour of the others|Farbe der anderen|Color de las demás
Colour tone|Farbton|Tono
Colour when off|Farbe wenn aus|Color apagado
Colour when on|Farbe wenn an|Color encendido
Colour|Farbe|Color
Columns|Spalten|Columnas
Command|Befehl|Orden
Condition|Bedingung|Condición
Connect it|Verbinden|Conectarlo
Connect over gaps|Lücken überbrücken|Unir los huecos
Connected by|Verbunden über|Conectado por
Connecting …|Verbinde …|Conectando …
Controls|Bedienung|Controles
Copied|Kopiert|Copiado
Copy a project with a code|Projekt mit einem Code kopieren|Copiar un proyecto con un código
Copy the link|Link kopieren|Copiar el enlace
Copy|Kopieren|Copiar
Corners|Ecken|Esquinas
Create|Anlegen|Crear
CSV of what is shown|CSV des Gezeigten|CSV de lo mostrado
Dark|Dunkel|Oscuro
Day|Tag|Día
day|Tag|día
Days before now|Tage zurück|Días hacia atrás
Days of the week|Wochentage|Días de la semana
Default|Standard|Por defecto
Delete its history|Seinen Verlauf löschen|Borrar su historial
Delete its history?|Seinen Verlauf löschen?|¿Borrar su historial?
Delete the data|Daten löschen|Borrar los datos
Delete the data?|Daten löschen?|¿Borrar los datos?
Delete the project|Projekt löschen|Borrar el proyecto
Delete this rule?|Diese Regel löschen?|¿Borrar esta regla?
Delete “{0}”?|„{0}“ löschen?|¿Borrar «{0}»?
Delete|Löschen|Borrar
Delete?|Löschen?|¿Borrar?
Deleted|Gelöscht|Borrado
Device selector|Geräteauswahl|Selector de dispositivo
Device tiles|Gerätekacheln|Teselas de dispositivos
device to device|von Gerät zu Gerät|de dispositivo a dispositivo
Device|Gerät|Dispositivo
New devices with this id get a tile of their own.|Neue Geräte mit dieser Kennung bekommen eine eigene Kachel.|Los dispositivos nuevos con este id reciben su tesela.
Devices to choose from|Geräte zur Auswahl|Dispositivos a elegir
Devices|Geräte|Dispositivos
Digits after the point|Nachkommastellen|Decimales
Displays|Anzeigen|Visores
Do not tell me when devices go offline|Nicht melden, wenn Geräte offline gehen|No avisar si un dispositivo se desconecta
do nothing|nichts tun|no hacer nada
Done|Fertig|Hecho
Download the certificate|Zertifikat herunterladen|Descargar el certificado
Download the certificate.|Lade das Zertifikat herunter.|Descarga el certificado.
Download|Herunterladen|Descargar
Drag widgets from the box onto the grid. The token for your device is under Devices.|Ziehe Widgets auf das Raster. Das Token für dein Gerät steht unter Geräte.|Arrastra widgets a la cuadrícula. El token está en Dispositivos.
Duplicate|Duplizieren|Duplicar
Duplicated|Dupliziert|Duplicado
E-mail|E-Mail|Correo
Edit its page|Seite bearbeiten|Editar su página
Edit the rules|Regeln bearbeiten|Editar las reglas
Edit|Bearbeiten|Editar
Energy|Energie|Energía
energy|Energie|energía
Enter it under Projects, or scan it with the phone app.|Gib ihn unter Projekte ein, oder scanne ihn mit der Handy-App.|Escríbelo en Proyectos, o escanéalo con la app.
Every day at {0}|Jeden Tag um {0}|Cada día a las {0}
Every day|Jeden Tag|Cada día
every day|jeden Tag|cada día
every month|jeden Monat|cada mes
every week|jede Woche|cada semana
Every {0} at {1}|Jeden {0} um {1}|Cada {0} a las {1}
Everybody who has the old link is thrown out.|Wer den alten Link hat, fliegt hinaus.|Quien tenga el enlace antiguo queda fuera.
Its pins' history is deleted for good.|Der Verlauf seiner Pins wird endgültig gelöscht.|El historial de sus pines se borra para siempre.
failed|gescheitert|falló
Files|Dateien|Archivos
Fill|Füllen|Rellenar
Filled line|Gefüllte Linie|Línea rellena
Firmware update|Firmware-Aktualisierung|Actualización de firmware
First of the month|Erster des Monats|Primero del mes
Fit|Einpassen|Ajustar
Fixed span|Feste Spanne|Intervalo fijo
Fixed|Fest|Fija
Flip the direction|Richtung umkehren|Invertir la dirección
Follow the newest point|Dem neuesten Punkt folgen|Seguir el último punto
Font size|Schriftgröße|Tamaño de letra
Format of line 1|Format der Zeile 1|Formato de la línea 1
Format of line 2|Format der Zeile 2|Formato de la línea 2
Format|Format|Formato
from|von|de
Full screen|Vollbild|Pantalla completa
Gauge|Zeiger|Indicador
Give it away|Weitergeben|Regalarlo
Gravity|Schwerkraft|Gravedad
greatest|größter|mayor
Green|Grün|Verde
Guests may delete data|Gäste dürfen Daten löschen|Los invitados pueden borrar datos
Headers|Kopfzeilen|Cabeceras
High|Hoch|Alta
Hint|Hinweis|Pista
hour|Stunde|hora
How long|Wie lange|Cuánto tiempo
Humidity|Luftfeuchte|Humedad
I have a token already|Ich habe schon ein Token|Ya tengo un token
I have an account|Ich habe ein Konto|Tengo una cuenta
Image|Bild|Imagen
In the browser's settings: Privacy and security → Certificates → Authorities → Import.|In den Einstellungen des Browsers: Datenschutz und Sicherheit → Zertifikate → Zertifizierungsstellen → Importieren.|En los ajustes del navegador: Privacidad y seguridad → Certificados → Autoridades → Importar.
Input line|Eingabezeile|Línea de entrada
Interface|Oberfläche|Interfaz
is at least|mindestens ist|es al menos
is at most|höchstens ist|es como mucho
is between|liegt zwischen|está entre
is equal to|gleich ist|es igual a
is higher than|höher ist als|es mayor que
is lower than|niedriger ist als|es menor que
is not between|nicht liegt zwischen|no está entre
is not equal to|nicht gleich ist|no es igual a
is not the text|nicht der Text ist|no es el texto
is the text|der Text ist|es el texto
It is your name here; mail is only sent to it when you ask for it.|Sie ist hier dein Name; Mail geht nur hin, wenn du es willst.|Es tu nombre aquí; solo recibe correo si lo pides.
Its page and tiles are deleted.|Ihre Seite und Kacheln werden gelöscht.|Se borran su página y sus teselas.
Its token stops working. Widgets that use it stay, without a device.|Sein Token gilt nicht mehr. Seine Widgets bleiben, ohne Gerät.|Su token deja de valer. Sus widgets quedan sin dispositivo.
Its widgets, devices and their history are gone for good.|Widgets, Geräte und ihr Verlauf sind dann endgültig weg.|Widgets, dispositivos e historial se pierden para siempre.
Joystick|Steuerknüppel|Joystick
Keep the screen on|Bildschirm anlassen|Mantener la pantalla encendida
Kind of device|Art des Geräts|Tipo de dispositivo
kind of pin|Art des Pins|tipo de pin
Kind|Art|Tipo
Knob colour|Farbe des Schiebers|Color del tirador
Labelled value|Wert mit Text|Valor con texto
Language|Sprache|Idioma
Large|Groß|Grande
Last address|Letzte Adresse|Última dirección
Last of the month|Letzter des Monats|Último del mes
Last value|Letzter Wert|Último valor
last: {0}, {1}|zuletzt: {0}, {1}|último: {0}, {1}
Latitude|Breite|Latitud
least|kleinster|menor
Leave|Verlassen|Salir
Left|Links|Izquierda
less|weniger|menos
Level colour|Farbe des Pegels|Color del nivel
Level|Pegel|Nivel
Light sensor|Lichtsensor|Sensor de luz
Light text|Helle Schrift|Texto claro
Light|Hell|Claro
Like the system|Wie das System|Como el sistema
Line 1|Zeile 1|Línea 1
Line 2|Zeile 2|Línea 2
Line colour|Linienfarbe|Color de la línea
Line {0}|Linie {0}|Línea {0}
Line|Linie|Línea
Lines for the device|Zeilen für das Gerät|Líneas para el dispositivo
Lines|Linien|Líneas
Link button|Link-Knopf|Botón de enlace
Live|Live|En vivo
Loading …|Lade …|Cargando …
Lock tiles of devices that are offline|Kacheln von Offline-Geräten sperren|Bloquear teselas sin conexión
Log in|Anmelden|Entrar
Log out|Abmelden|Cerrar sesión
Longitude|Länge|Longitud
Look|Aussehen|Aspecto
Mail me the token|Token per Mail an mich|Enviarme el token
Make an account|Konto anlegen|Crear una cuenta
Make the account|Konto anlegen|Crear la cuenta
Map readings 0–1023 to the range|Messwerte 0–1023 auf den Bereich abbilden|Convertir lecturas 0–1023 al rango
Map|Karte|Mapa
median|Median|mediana
Medium|Mittel|Mediano
Menu|Menü|Menú
Message|Nachricht|Mensaje
Method|Methode|Método
Middle|Mitte|Centro
milliseconds|Millisekunden|milisegundos
minute|Minute|minuto
Mode|Modus|Modo
Monday to Friday|Montag bis Freitag|de lunes a viernes
More|Mehr|Más
more|mehr|más
Move down|Nach unten|Bajar
Move up|Nach oben|Subir
Name of the value|Name des Werts|Nombre del valor
Name|Name|Nombre
never connected|nie verbunden|nunca conectado
never|nie|nunca
New device|Neues Gerät|Nuevo dispositivo
New here? Make an account|Neu hier? Konto anlegen|¿Eres nuevo? Crea una cuenta
New link|Neuer Link|Nuevo enlace
New link?|Neuer Link?|¿Nuevo enlace?
New password|Neues Passwort|Nueva contraseña
New project|Neues Projekt|Nuevo proyecto
New report|Neuer Bericht|Nuevo informe
New rule|Neue Regel|Nueva regla
New tag|Neues Etikett|Nueva etiqueta
New template|Neue Vorlage|Nueva plantilla
New timer|Neuer Zeitschalter|Nuevo temporizador
New token|Neues Token|Nuevo token
New token?|Neues Token?|¿Nuevo token?
New webhook|Neuer Webhook|Nuevo webhook
Newer|Neuer|Más nuevo
Next|Weiter|Siguiente
next: {0}|nächster: {0}|próximo: {0}
no address is set|keine Adresse gesetzt|sin dirección
No connection to the server. What you see is from {0}; trying again …|Keine Verbindung zum Server. Was du siehst, ist von {0}; neuer Versuch …|Sin conexión con el servidor. Lo que ves es de las {0}; reintentando …
No connection to the server.|Keine Verbindung zum Server.|Sin conexión con el servidor.
No data for this time yet: averages are made every minute.|Noch keine Daten für diese Zeit: Mittelwerte entstehen jede Minute.|Aún sin datos: las medias se hacen cada minuto.
No data for this time: the device is offline.|Keine Daten für diese Zeit: Das Gerät ist offline.|Sin datos: el dispositivo está sin conexión.
no data|keine Daten|sin datos
No device uses a template yet.|Noch kein Gerät benutzt eine Vorlage.|Ningún dispositivo usa aún una plantilla.
no device yet|noch kein Gerät|aún sin dispositivo
No device yet.|Noch kein Gerät.|Aún no hay dispositivos.
No file yet. They are kept here also when no mail is set up.|Noch keine Datei. Sie liegen hier auch dann, wenn keine Mail eingerichtet ist.|Aún no hay archivos. Se guardan aquí aunque no haya correo.
No line has a pin yet: set it in edit mode.|Noch hat keine Linie einen Pin: Lege ihn beim Bearbeiten fest.|Ninguna línea tiene pin: ponlo al editar.
no options|keine Auswahl|sin opciones
no picture is set|kein Bild gesetzt|sin imagen
No pin is logged yet: choose the pins first.|Noch wird kein Pin aufgezeichnet: Wähle erst die Pins.|Aún no se registra ningún pin: elige los pines.
no position yet|noch keine Position|aún sin posición
no room there|dort ist kein Platz|ahí no hay sitio
no rows yet|noch keine Zeilen|aún sin filas
No rule yet. Example: when V5 is higher than 30: notify me.|Noch keine Regel. Beispiel: Wenn V5 höher ist als 30: benachrichtige mich.|Aún no hay reglas. Ejemplo: si V5 es mayor que 30: avísame.
None yet.|Noch keine.|Aún nada.
Normal|Normal|Normal
Not allowed.|Nicht erlaubt.|No permitido.
Not enough energy. You can add some under Account.|Zu wenig Energie. Unter Konto gibt es mehr.|Falta energía. Puedes añadirla en Cuenta.
Nothing found.|Nichts gefunden.|Nada encontrado.
Nothing has been sent yet.|Noch wurde nichts gesendet.|Aún no se ha enviado nada.
nothing to choose from|nichts zur Auswahl|nada que elegir
Notifications need the Notifications widget in the project.|Benachrichtigungen brauchen das Widget Benachrichtigungen im Projekt.|Las notificaciones necesitan su widget en el proyecto.
Notifications|Benachrichtigungen|Notificaciones
notify me|mich benachrichtigen|avisarme
notify me: {0}|benachrichtige mich: {0}|avísame: {0}
Number input|Zahleneingabe|Entrada de número
number|Nummer|número
Of several devices|Von mehreren Geräten|De varios dispositivos
off at|aus um|apagar
OFF|AUS|OFF
Offline first|Offline zuerst|Primero sin conexión
offline|offline|sin conexión
offline, last seen {0}|offline, zuletzt gesehen {0}|sin conexión, visto {0}
Older|Älter|Más antiguo
On and off|An und aus|Sí y no
on at|an um|encender
On tab|Auf Reiter|En la pestaña
On the first day of the month at {0}|Am ersten Tag des Monats um {0}|El primer día del mes a las {0}
On the last day of the month at {0}|Am letzten Tag des Monats um {0}|El último día del mes a las {0}
The https address allows more: this page as an app, system notifications, sensors, camera. First this device has to trust the server's own certificate.|Die https-Adresse erlaubt mehr: die Seite als App, Systembenachrichtigungen, Sensoren, Kamera. Vorher muss dieses Gerät dem Zertifikat des Servers vertrauen.|La dirección https permite más: la página como app, notificaciones del sistema, sensores, cámara. Antes este dispositivo debe confiar en el certificado del servidor.
ON|AN|ON
once, for the time before|einmal, für die Zeit davor|una vez, del tiempo anterior
Once, of the last {0} days|Einmal, über die letzten {0} Tage|Una vez, de los últimos {0} días
one file|eine Datei|un archivo
One line per|Eine Zeile je|Una línea por
one per device|eine je Gerät|uno por dispositivo
one per pin|eine je Pin|uno por pin
One pin per axis|Ein Pin je Achse|Un pin por eje
One pin per colour|Ein Pin je Farbe|Un pin por color
Online first|Online zuerst|Primero conectados
online|online|conectado
online, connected {0}|online, verbunden {0}|conectado {0}
only in the phone app|nur in der Handy-App|solo en la app del móvil
Only when it stays away for|Nur wenn es wegbleibt für|Solo si falta durante
Opacity, %|Deckkraft, %|Opacidad, %
Open the file in Keychain Access, double-click it → Trust → Always trust.|Öffne die Datei in der Schlüsselbundverwaltung, Doppelklick → Vertrauen → Immer vertrauen.|Abre el archivo en Acceso a Llaveros, doble clic → Confiar → Confiar siempre.
Open the file → Install certificate → Local machine → Trusted root certification authorities.|Öffne die Datei → Zertifikat installieren → Lokaler Computer → Vertrauenswürdige Stammzertifizierungsstellen.|Abre el archivo → Instalar certificado → Equipo local → Entidades de certificación raíz de confianza.
Open|Öffnen|Abrir
Opening the shared project …|Öffne das geteilte Projekt …|Abriendo el proyecto compartido …
Options|Auswahl|Opciones
Order|Reihenfolge|Orden
Original size|Originalgröße|Tamaño original
Outline|Umriss|Contorno
over|vorbei|terminado
own colour|eigene Farbe|color propio
Password forgotten?|Passwort vergessen?|¿Olvidaste la contraseña?
Password|Passwort|Contraseña
Pause the project|Projekt anhalten|Pausar el proyecto
paused|angehalten|en pausa
Period|Zeitraum|Periodo
Periods|Zeiträume|Periodos
Phone number|Telefonnummer|Teléfono
Pill|Pille|Píldora
Pin of the tile's value|Pin für den Wert der Kachel|Pin del valor de la tesela
Pins to log|Pins zum Aufzeichnen|Pines a registrar
Pins|Pins|Pines
Place trigger|Ortsauslöser|Aviso de lugar
Plain text|Reiner Text|Texto simple
Play|Abspielen|Reproducir
Player|Abspieler|Reproductor
Position|Position|Posición
Previous|Zurück|Anterior
Priority|Priorität|Prioridad
Processor|Prozessor|Procesador
Projects|Projekte|Proyectos
Property|Eigenschaft|Propiedad
Proximity|Nähe|Proximidad
Push: on while it is held|Taster: an, solange gedrückt|Pulsador: activo mientras se pulsa
QR code|QR-Code|Código QR
QR scanner|QR-Leser|Lector QR
Radius in metres|Radius in Metern|Radio en metros
Range|Bereich|Rango
Read every|Abfragen alle|Leer cada
Received in this page|Auf dieser Seite empfangen|Recibido en esta página
Red|Rot|Rojo
Redo|Wiederholen|Rehacer
Refresh|Neu laden|Recargar
Remove|Entfernen|Quitar
Rename and change|Umbenennen und ändern|Renombrar y cambiar
Report {0}|Bericht {0}|Informe {0}
Report|Bericht|Informe
Reports send the history of pins as a table by mail.|Berichte schicken den Verlauf von Pins als Tabelle per Mail.|Los informes envían el historial de los pines por correo.
Reports|Berichte|Informes
Reset the password|Passwort zurücksetzen|Restablecer la contraseña
Restart the browser, then open the https address.|Starte den Browser neu, dann öffne die https-Adresse.|Reinicia el navegador y abre la dirección https.
Right|Rechts|Derecha
Rotation, degrees|Drehung, Grad|Rotación, grados
Rounded|Rund|Redondas
Rows can be moved|Zeilen sind verschiebbar|Las filas se pueden mover
Rows can be ticked|Zeilen sind anhakbar|Las filas se pueden marcar
Rows|Zeilen|Filas
Rule|Regel|Regla
Rules and timers|Regeln und Zeitschalter|Reglas y temporizadores
Rules|Regeln|Reglas
Running|Betrieb|En marcha
Saturation|Sättigung|Saturación
Save|Speichern|Guardar
Saved|Gespeichert|Guardado
Scale|Skala|Escala
Scale, %|Größe, %|Escala, %
Scaling|Skalierung|Escalado
Scan a code|Code scannen|Escanear
Scroll to the newest line|Zur neuesten Zeile rollen|Ir a la última línea
Search widgets|Widgets suchen|Buscar widgets
Secret|Geheimnis|Secreto
Segments|Segmente|Segmentos
Send 1 when I arrive (else when I leave)|1 senden, wenn ich ankomme (sonst wenn ich gehe)|Enviar 1 al llegar (si no, al salir)
send a mail|eine Mail senden|enviar un correo
send a mail: {0}|sende eine Mail: {0}|envía un correo: {0}
Send at most every|Höchstens senden alle|Enviar como mucho cada
Send now|Jetzt senden|Enviar ahora
Send only when released|Erst beim Loslassen senden|Enviar solo al soltar
Send the mail|Mail senden|Enviar el correo
Send the step, not the sum|Schritt senden, nicht die Summe|Enviar el paso, no la suma
Send|Senden|Enviar
Sensors need the https address.|Sensoren brauchen die https-Adresse.|Los sensores necesitan la dirección https.
Sensors|Sensoren|Sensores
Sent by the server|Vom Server gesendet|Enviado por el servidor
sent|gesendet|enviado
Server: {0}, port {1}|Server: {0}, Port {1}|Servidor: {0}, puerto {1}
set a pin|einen Pin setzen|poner un pin
Set the password|Passwort setzen|Fijar la contraseña
Set up reports|Berichte einrichten|Preparar informes
set {0} to {1}|setze {0} auf {1}|pon {0} a {1}
Settings → Security → Install a certificate → CA certificate: choose the file.|Einstellungen → Sicherheit → Zertifikat installieren → CA-Zertifikat: Wähle die Datei.|Ajustes → Seguridad → Instalar un certificado → Certificado de CA: elige el archivo.
Settings|Einstellungen|Ajustes
Share of the height|Anteil der Höhe|Parte de la altura
Share this project|Dieses Projekt teilen|Compartir este proyecto
Share|Teilen|Compartir
shared|geteilt|compartido
Sharp|Eckig|Rectas
Show everything|Alles zeigen|Mostrar todo
Show it to others|Anderen zeigen|Mostrarlo a otros
Show me|Zeigen|Muéstrame
Show the code|Code zeigen|Mostrar el código
Show the legend|Legende zeigen|Mostrar la leyenda
Show the title|Titel zeigen|Mostrar el título
Show the value|Wert zeigen|Mostrar el valor
Show where I am|Zeigen, wo ich bin|Mostrar dónde estoy
Skip to content|Zum Inhalt|Ir al contenido
Slider|Schieber|Deslizador
Small|Klein|Pequeño
Smooth|Glätten|Suavizar
Solid|Gefüllt|Sólido
Spring back to the middle|In die Mitte zurückfedern|Volver al centro
Start and stop time|Start- und Endzeit|Hora de inicio y fin
Start over at the end|Am Ende von vorn|Volver a empezar al final
Start the project|Projekt starten|Iniciar el proyecto
Start time|Startzeit|Hora de inicio
Start|Start|Iniciar
State|Zustand|Estado
Stay logged in on this device|Auf diesem Gerät angemeldet bleiben|Mantener la sesión en este dispositivo
Step|Schritt|Paso
Steps|Schritte|Pasos
Stop sharing|Nicht mehr teilen|Dejar de compartir
Stop time|Endzeit|Hora de fin
Stop|Stopp|Parar
Stronger widget background|Kräftigerer Widget-Hintergrund|Fondo de widgets más fuerte
Style|Stil|Estilo
Styled button|Gestalteter Knopf|Botón con estilo
Subject|Betreff|Asunto
sum|Summe|suma
Sunrise and sunset|Sonnenauf- und -untergang|Salida y puesta del sol
sunrise|Sonnenaufgang|salida del sol
sunset|Sonnenuntergang|puesta del sol
Switch|Schalter|Interruptor
Switch: each press turns it over|Schalter: jeder Druck schaltet um|Interruptor: cada toque lo cambia
System notifications are allowed.|Systembenachrichtigungen sind erlaubt.|Las notificaciones del sistema están permitidas.
System notifications are blocked in the settings of the browser.|Systembenachrichtigungen sind im Browser gesperrt.|El navegador bloquea las notificaciones del sistema.
System notifications need the https address; in the page they always appear.|Systembenachrichtigungen brauchen die https-Adresse; auf der Seite erscheinen sie immer.|Las notificaciones del sistema necesitan https; en la página aparecen siempre.
Tab {0}|Reiter {0}|Pestaña {0}
Tab|Reiter|Pestaña
Table|Tabelle|Tabla
Tabs|Reiter|Pestañas
tag {0}|Etikett {0}|etiqueta {0}
Tags|Etiketten|Etiquetas
Tags: several devices as one|Etiketten: mehrere Geräte als eines|Etiquetas: varios dispositivos como uno
Tap + and choose a widget. Drag to move, drag the corner to resize, click for the settings.|Tippe auf + und wähle ein Widget. Ziehen verschiebt, die Ecke ändert die Größe, ein Klick öffnet die Einstellungen.|Toca + y elige un widget. Arrastra para mover, la esquina cambia el tamaño, un clic abre los ajustes.
Tell devices when an app comes and goes|Geräten melden, wenn eine App kommt und geht|Avisar a los dispositivos cuando una app entra o sale
Template id|Kennung der Vorlage|Id de la plantilla
Template|Vorlage|Plantilla
Templates|Vorlagen|Plantillas
Terminal|Terminal|Terminal
Text and colours|Text und Farben|Texto y colores
Text colour|Textfarbe|Color del texto
Text input|Texteingabe|Entrada de texto
Text only|Nur Text|Solo texto
Text when off|Text wenn aus|Texto apagado
Text when on|Text wenn an|Texto encendido
Text|Text|Texto
The camera is not allowed.|Die Kamera ist nicht erlaubt.|La cámara no está permitida.
The device is offline.|Das Gerät ist offline.|El dispositivo está sin conexión.
The device is offline: nothing comes in.|Das Gerät ist offline: Es kommt nichts an.|Dispositivo sin conexión: no llega nada.
The device|Das Gerät|El dispositivo
The first link costs 1,000 energy.|Der erste Link kostet 1.000 Energie.|El primer enlace cuesta 1.000 de energía.
The history of this chart's pins is deleted for good.|Der Verlauf der Pins dieses Diagramms wird endgültig gelöscht.|El historial de los pines de este gráfico se borra para siempre.
The log needs a device in one of your projects.|Die Liste braucht ein Gerät in einem deiner Projekte.|El registro necesita un dispositivo en algún proyecto.
The mail could not be sent. Is mail set up on the server?|Die Mail ging nicht hinaus. Ist Mail auf dem Server eingerichtet?|El correo no salió. ¿Está configurado en el servidor?
The mail is sent.|Die Mail ist gesendet.|Correo enviado.
The old link does not work any more.|Der alte Link gilt nicht mehr.|El enlace antiguo ya no vale.
The device is cut off until it has the new one.|Das Gerät ist getrennt, bis es das neue hat.|El dispositivo queda fuera hasta tener el nuevo.
The owner does not share this project at the moment.|Der Besitzer teilt dieses Projekt gerade nicht.|El dueño no comparte este proyecto ahora.
The password is wrong.|Das Passwort ist falsch.|La contraseña es incorrecta.
the picture does not load|das Bild lädt nicht|la imagen no carga
The project is paused: start it first.|Das Projekt ist angehalten: Starte es erst.|El proyecto está en pausa: inícialo.
The server could not do this.|Der Server konnte das nicht.|El servidor no pudo hacerlo.
The server did not accept this.|Der Server hat das nicht angenommen.|El servidor no lo aceptó.
The server did not answer in time.|Der Server hat nicht rechtzeitig geantwortet.|El servidor no respondió a tiempo.
the stream does not answer|der Strom antwortet nicht|la emisión no responde
the time is …|die Uhrzeit …|la hora …
The token is what a device logs in with. Keep it to yourself.|Mit dem Token meldet sich ein Gerät an. Behalte es für dich.|Con el token entra un dispositivo. Guárdalo para ti.
The widget is deleted from the project.|Das Widget wird aus dem Projekt gelöscht.|El widget se borra del proyecto.
then|dann|entonces
There are tabs already.|Es gibt schon Reiter.|Ya hay pestañas.
There is an account with this e-mail address already.|Zu dieser E-Mail-Adresse gibt es schon ein Konto.|Ya hay una cuenta con este correo.
There is no account with this e-mail address.|Zu dieser E-Mail-Adresse gibt es kein Konto.|No hay cuenta con este correo.
There is no data yet.|Es gibt noch keine Daten.|Aún no hay datos.
There is no widget here yet.|Hier ist noch kein Widget.|Aún no hay widgets aquí.
There is nothing older.|Älteres gibt es nicht.|No hay nada más antiguo.
Thermometer|Thermometer|Termómetro
This account has no password.|Dieses Konto hat kein Passwort.|Esta cuenta no tiene contraseña.
this address cannot be shown|diese Adresse lässt sich nicht zeigen|esta dirección no se puede mostrar
This browser cannot read QR codes with the camera here: type the code.|Dieser Browser liest hier keine QR-Codes mit der Kamera: Tippe den Code.|Este navegador no lee códigos QR aquí: escribe el código.
This browser has no such sensor.|Dieser Browser hat keinen solchen Sensor.|Este navegador no tiene ese sensor.
This browser|Dieser Browser|Este navegador
This device does not give its readings.|Dieses Gerät gibt seine Werte nicht heraus.|Este dispositivo no da sus lecturas.
This device has no token.|Dieses Gerät hat kein Token.|Este dispositivo no tiene token.
This link does not work any more, or the owner has switched sharing off.|Dieser Link gilt nicht mehr, oder der Besitzer teilt nicht mehr.|Este enlace ya no vale, o el dueño dejó de compartir.
This page does not know this kind of widget. It stays as it is.|Diese Seite kennt diese Art Widget nicht. Es bleibt, wie es ist.|Esta página no conoce este tipo de widget. Queda como está.
This page has no widgets yet.|Diese Seite hat noch keine Widgets.|Esta página aún no tiene widgets.
This part of the page could not be loaded.|Dieser Teil der Seite ließ sich nicht laden.|No se pudo cargar esta parte de la página.
This project is paused: values are not passed on, rules and timers rest.|Dieses Projekt ist angehalten: Werte werden nicht weitergegeben, Regeln und Zeitschalter ruhen.|Este proyecto está en pausa: no pasan valores; reglas y temporizadores descansan.
This project is shared|Dieses Projekt ist geteilt|Este proyecto está compartido
This screen could not be shown.|Diese Ansicht ließ sich nicht zeigen.|No se pudo mostrar esta pantalla.
This server has no certificate of its own to download.|Dieser Server hat kein eigenes Zertifikat zum Herunterladen.|Este servidor no tiene certificado propio que descargar.
This timer has no time yet.|Dieser Zeitschalter hat noch keine Zeit.|Este temporizador aún no tiene hora.
This widget cannot be drawn.|Dieses Widget lässt sich nicht zeichnen.|No se puede dibujar este widget.
Tile colour|Farbe der Kachel|Color de la tesela
Time input|Zeiteingabe|Entrada de hora
Time zone|Zeitzone|Zona horaria
Time|Zeit|Hora
Timer|Zeitschalter|Temporizador
Timers|Zeitschalter|Temporizadores
Times as|Zeiten als|Horas como
Times on the axis|Zeiten an der Achse|Horas en el eje
Title|Titel|Título
to your own address|an deine eigene Adresse|a tu propia dirección
To|An|Para
to|bis|a
Token of {0}|Token von {0}|Token de {0}
Too long for a QR code.|Zu lang für einen QR-Code.|Demasiado largo para un código QR.
Too many at once: a limit of the server is reached.|Zu viel auf einmal: Eine Grenze des Servers ist erreicht.|Demasiado a la vez: se alcanzó un límite del servidor.
Trust this server (https)|Diesem Server vertrauen (https)|Confiar en este servidor (https)
Trust this server|Diesem Server vertrauen|Confiar en este servidor
Try again|Noch einmal|Reintentar
Try now|Jetzt versuchen|Probar ahora
Tweet|Tweet|Tuit
tweet|twittern|tuitear
tweet: {0}|twittere: {0}|tuitea: {0}
Tweets need the Tweet widget in the project.|Tweets brauchen das Widget Tweet im Projekt.|Los tuits necesitan su widget en el proyecto.
type a command|Befehl eingeben|escribe una orden
Undo|Rückgängig|Deshacer
Unit|Einheit|Unidad
Up to five addresses, with commas between them|Bis zu fünf Adressen, mit Kommas dazwischen|Hasta cinco direcciones, separadas por comas
Upload it, open the serial monitor, and the device appears online here.|Lade es hoch, öffne den seriellen Monitor, und das Gerät erscheint hier online.|Súbelo, abre el monitor serie y el dispositivo aparecerá aquí.
Use edit mode for this.|Das geht beim Bearbeiten.|Hazlo al editar.
Use the https address and install this app|Die https-Adresse nutzen und die App installieren|Usar la dirección https e instalar la app
User name|Benutzername|Usuario
Value format|Format des Werts|Formato del valor
Value sent at the end|Wert am Ende|Valor al final
Value sent at the start|Wert am Anfang|Valor al inicio
Value|Wert|Valor
Values on the axis|Werte an der Achse|Valores en el eje
Vertical level|Senkrechter Pegel|Nivel vertical
Vertical slider|Senkrechter Schieber|Deslizador vertical
Vertical step|Senkrechter Schritt|Paso vertical
Video|Video|Vídeo
Waiting for the first value …|Warte auf den ersten Wert …|Esperando el primer valor …
Welcome!|Willkommen!|¡Bienvenido!
When off|Wenn aus|Apagado
When on|Wenn an|Encendido
When the device sends (push)|Wenn das Gerät sendet (Push)|Cuando el dispositivo envía (push)
When {0} gets a value: {1} {2}|Wenn {0} einen Wert bekommt: {1} {2}|Cuando {0} recibe un valor: {1} {2}
When {0} {1}: {2}|Wenn {0} {1}: {2}|Cuando {0} {1}: {2}
When|Wenn|Cuando
Whoever has the link sees this project and can use its widgets, without an account. You can end it at any time.|Wer den Link hat, sieht dieses Projekt und kann seine Widgets benutzen, ohne Konto. Du kannst es jederzeit beenden.|Quien tenga el enlace ve este proyecto y usa sus widgets, sin cuenta. Puedes terminarlo cuando quieras.
Whoever has the project finds its code in the settings of the project.|Wer das Projekt hat, findet den Code in dessen Einstellungen.|Quien tiene el proyecto ve el código en sus ajustes.
Widget box|Widget-Kasten|Caja de widgets
widget|Widget|widget
Widgets cost energy and give it back when deleted. On your own server it is free.|Widgets kosten Energie und geben sie beim Löschen zurück. Auf deinem Server ist sie umsonst.|Los widgets cuestan energía y la devuelven al borrarlos. En tu servidor es gratis.
Widgets that use the tag stay, without a device.|Widgets mit dem Etikett bleiben, ohne Gerät.|Los widgets con la etiqueta quedan sin dispositivo.
With the code others get a copy of this project, without tokens and values.|Mit dem Code bekommen andere eine Kopie dieses Projekts, ohne Token und Werte.|Con el código otros obtienen una copia del proyecto, sin tokens ni valores.
without end|ohne Ende|sin fin
Your device has not connected yet. It needs its token and a few lines.|Dein Gerät hat sich noch nicht verbunden. Es braucht sein Token und ein paar Zeilen.|Tu dispositivo aún no se ha conectado. Necesita su token y unas líneas.
Your device|Dein Gerät|Tu dispositivo
zeRGBa colour|Farbwähler|Color RGB
Zoom in|Vergrößern|Acercar
Zoom out|Verkleinern|Alejar
{0} (copy)|{0} (Kopie)|{0} (copia)
{0} and {1}|{0} und {1}|{0} y {1}
{0} is offline: it will not get this now.|{0} ist offline: Es bekommt das jetzt nicht.|{0} está sin conexión: no lo recibirá ahora.
{0}: column {1}, row {2}, {3} wide, {4} high|{0}: Spalte {1}, Zeile {2}, {3} breit, {4} hoch|{0}: columna {1}, fila {2}, {3} de ancho, {4} de alto
{0} active|{0} aktiv|{0} activas
widgets: {0}|Widgets: {0}|widgets: {0}
{0}/{1} online|{0}/{1} online|{0}/{1} conectados
pins: {0}, devices: {1}|Pins: {0}, Geräte: {1}|pines: {0}, dispositivos: {1}
Pins logged for reports: {0}|Für Berichte aufgezeichnete Pins: {0}|Pines registrados para informes: {0}
devices: {0}|Geräte: {0}|dispositivos: {0}
`
		.trim()
		.split("\n")
		.map((line) => line.split("|"))
		.map(([english, ...others]) => [english, others]),
);
