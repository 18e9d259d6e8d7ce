# The server in the smallest image that has what it uses: Python, openssl (its own certificate), time zones.
#
#     docker build -t blynk-pi .
#     docker run -d --name blynk --restart unless-stopped --network host -v blynk:/data blynk-pi
#
# --network host lets it announce itself on the local network; without: -p 8080:8080 -p 9443:9443 -p 8440:8440.
# Boards on USB: docker run … --device /dev/ttyACM0 --entrypoint python3 blynk-pi /app/blynk-ser.py -c /dev/ttyACM0

FROM alpine:3.22
RUN apk add --no-cache python3 openssl tzdata py3-pyserial \
 && adduser -D -H -u 1000 -G dialout blynk \
 && install -d -o blynk -g dialout -m 0700 /data
WORKDIR /app
COPY blynk_pi.py blynk-ser.py ./
COPY web ./web
# Compiled here once: a start from source costs every container memory and time.
RUN python3 -m compileall -q /app
USER blynk
VOLUME /data
EXPOSE 8080 9443 8440
HEALTHCHECK --interval=60s --timeout=5s CMD nc -z 127.0.0.1 8080
ENTRYPOINT ["python3", "/app/blynk_pi.py"]
CMD ["--data", "/data"]
