/* The yardstick of the limit: librabbitmq by hand, one thread, bytes echoed without JSON. It obeys what work.py says to all clients.
 *
 *     cc -O2 -o c_librabbitmq c_librabbitmq.c -lrabbitmq;  ./c_librabbitmq client|server|apart amqp://guest:guest@127.0.0.1:5672/vhost
 *
 * Requests carry their number as correlation id. No timeout, no reconnect, no checks but those of the answer: what C alone can do.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#define MOST 10000000
static amqp_connection_state_t link_;
static const char *BODY = "{\"number\": 1, \"uuid\": \"b40c0d6b-3d4f-4022-9f70-7cdb9f384f9d\", \"display_name\": \"int32bit-test-1\", "
    "\"host\": \"cmp1\", \"vm_state\": \"active\", \"flavor\": {\"vcpus\": 2, \"memory_mb\": 2048, \"root_gb\": 20}, \"tags\": [\"a\", \"b\", null]}";

static double now_s(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static void fail(const char *what) { fprintf(stderr, "c_librabbitmq: %s\n", what); exit(1); }

static void check(const char *what) {
  if (amqp_get_rpc_reply(link_).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static void connect_to(char *url) {
  struct amqp_connection_info info;
  if (amqp_parse_url(url, &info) != AMQP_STATUS_OK) fail("the URL cannot be read");
  link_ = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(link_);
  if (amqp_socket_open(socket, info.host, info.port) != AMQP_STATUS_OK) fail("nobody answers there");
  if (amqp_login(link_, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password).reply_type != AMQP_RESPONSE_NORMAL)
    fail("login refused");
  amqp_channel_open(link_, 1);
  check("channel");
}

static void publish(const char *queue, amqp_bytes_t body, amqp_bytes_t id, amqp_bytes_t reply_to) {
  amqp_basic_properties_t properties;
  properties._flags = 0;
  if (id.len) { properties._flags |= AMQP_BASIC_CORRELATION_ID_FLAG; properties.correlation_id = id; }
  if (reply_to.len) { properties._flags |= AMQP_BASIC_REPLY_TO_FLAG; properties.reply_to = reply_to; }
  if (amqp_basic_publish(link_, 1, amqp_empty_bytes, amqp_cstring_bytes(queue), 0, 0, &properties, body)) fail("publish");
}

static int line_waits(void) {
  fd_set set; struct timeval none = {0, 0};
  FD_ZERO(&set); FD_SET(0, &set);
  return select(1, &set, NULL, NULL, &none) > 0;
}

static void serve(char **topics) {
  char queue[256];
  long handled = 0; double last_s = 0;
  amqp_basic_qos(link_, 1, 0, 128, 0); check("qos");
  for (; *topics; topics++) {
    for (int is_cast = 0; is_cast < 2; is_cast++) {
      snprintf(queue, sizeof queue, "%s%s", *topics, is_cast ? "" : ".echo");
      amqp_queue_declare(link_, 1, amqp_cstring_bytes(queue), 0, 0, 0, 0, amqp_empty_table); check("declare");
      amqp_basic_consume(link_, 1, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table); check("consume");
    }
  }
  puts("ready"); fflush(stdout);
  for (;;) {
    amqp_envelope_t envelope; struct timeval wait = {0, 2000};
    amqp_maybe_release_buffers(link_);
    amqp_rpc_reply_t got = amqp_consume_message(link_, &envelope, &wait, 0);
    if (got.reply_type == AMQP_RESPONSE_NORMAL) {
      if (envelope.message.properties._flags & AMQP_BASIC_REPLY_TO_FLAG) {
        char reply_to[256]; amqp_bytes_t name = envelope.message.properties.reply_to;
        snprintf(reply_to, sizeof reply_to, "%.*s", (int)name.len, (char *)name.bytes);
        publish(reply_to, envelope.message.body, envelope.message.properties.correlation_id, amqp_empty_bytes);
      } else { handled++; last_s = now_s(); }
      amqp_basic_ack(link_, 1, envelope.delivery_tag, 0);
      amqp_destroy_envelope(&envelope);
    } else if (got.library_error != AMQP_STATUS_TIMEOUT) fail("consume");
    if ((handled % 64 == 0 || got.reply_type != AMQP_RESPONSE_NORMAL) && line_waits()) {
      char line[4096];
      if (!fgets(line, sizeof line, stdin)) exit(0);
      printf("{\"handled\": %ld, \"last_s\": %.6f}\n", handled, last_s); fflush(stdout);
    }
  }
}

static double number_of(const char *line, const char *key) {
  char wanted[64]; snprintf(wanted, sizeof wanted, "\"%s\":", key);
  const char *found = strstr(line, wanted);
  return found ? atof(found + strlen(wanted)) : 0;
}

static int by_size(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return d < 0 ? -1 : d > 0; }

static void answer(double began_s, double seconds, long done, double *times, long count, long wrong) {
  qsort(times, count, sizeof *times, by_size);
  printf("{\"began_s\": %.6f, \"seconds\": %.6f, \"done\": %ld, \"answered\": %ld, \"wrong\": %ld, \"errors\": 0, \"p50_ms\": %.4f, "
         "\"p99_ms\": %.4f, \"said\": \"\"}\n", began_s, seconds, done, count, wrong, count ? times[count / 2] * 1e3 : 0,
         count ? times[(long)(count * 0.99)] * 1e3 : 0);
  fflush(stdout);
}

static void next_call(const char *topic, amqp_bytes_t replies, double *started, long number) {
  char id[32], queue[256];
  snprintf(id, sizeof id, "%ld", number); snprintf(queue, sizeof queue, "%s.echo", topic);
  started[number] = now_s();
  publish(queue, amqp_cstring_bytes(BODY), amqp_cstring_bytes(id), replies);
}

static void calls(const char *topic, amqp_bytes_t replies, long width, double seconds, long most, int is_told) {
  double *started = malloc(sizeof *started * (MOST + 1)), *times = malloc(sizeof *times * MOST), began_s = now_s();
  long begun = 0, count = 0, done = 0, wrong = 0;
  while (begun < width && begun < most) next_call(topic, replies, started, ++begun);
  while (count < begun) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(link_);
    if (amqp_consume_message(link_, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) fail("replies");
    char id[32]; amqp_bytes_t name = envelope.message.properties.correlation_id;
    snprintf(id, sizeof id, "%.*s", (int)name.len, (char *)name.bytes);
    double at_s = now_s();
    times[count++] = at_s - started[atol(id)];
    wrong += envelope.message.body.len != strlen(BODY);
    amqp_basic_ack(link_, 1, envelope.delivery_tag, 0);
    amqp_destroy_envelope(&envelope);
    if (at_s - began_s <= seconds) { done++; if (begun < most) next_call(topic, replies, started, ++begun); }
  }
  if (is_told) answer(began_s, begun < most ? seconds : now_s() - began_s, done, times, count, wrong);
  free(started); free(times);
}

static void wait_for_confirm(long *confirmed) {
  amqp_frame_t frame;
  amqp_maybe_release_buffers(link_);
  if (amqp_simple_wait_frame(link_, &frame)) fail("confirms");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) return;
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  *confirmed = (long)ack->delivery_tag > *confirmed ? (long)ack->delivery_tag : *confirmed;
}

static long published; /* of this channel, as the broker counts */

static void casts(const char *topic, long width, double seconds, long most) {
  double *times = malloc(sizeof *times), began_s = now_s();
  static long confirmed;
  long first = published;
  while (published - first < most && now_s() - began_s < seconds) {
    publish(topic, amqp_cstring_bytes(BODY), amqp_empty_bytes, amqp_empty_bytes);
    published++;
    while (published - confirmed >= width) wait_for_confirm(&confirmed);
  }
  long done = confirmed - first;
  while (confirmed < published) wait_for_confirm(&confirmed);
  times[0] = 0;
  printf("{\"began_s\": %.6f, \"seconds\": %.6f, \"done\": %ld, \"answered\": %ld, \"wrong\": 0, \"errors\": 0, \"p50_ms\": 0, "
         "\"p99_ms\": 0, \"said\": \"\"}\n", began_s, seconds, done, published - first);
  fflush(stdout);
  free(times);
}

int main(int argc, char **argv) {
  if (argc != 3) fail("wanted: client|server|apart URL");
  static char *served[] = {"bench", "flooded", NULL}, *apart[] = {"apart", NULL};
  connect_to(argv[2]);
  if (strcmp(argv[1], "client")) serve(strcmp(argv[1], "apart") ? served : apart);
  amqp_bytes_t replies = amqp_bytes_malloc_dup(
      amqp_queue_declare(link_, 1, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table)->queue);
  amqp_basic_consume(link_, 1, replies, amqp_empty_bytes, 0, 0, 0, amqp_empty_table); check("replies");
  calls("bench", replies, 1, 60, 1, 0);
  printf("{\"first_call_at_s\": %.6f}\n", now_s()); fflush(stdout);
  char line[4096]; int confirms = 0;
  while (fgets(line, sizeof line, stdin)) {
    char topic[64] = "bench";
    const char *found = strstr(line, "\"topic\": \"");
    if (found) sscanf(found + 10, "%63[^\"]", topic);
    long width = number_of(line, "in_flight"), most = number_of(line, "most");
    if (strstr(line, "\"calls\"")) { calls(topic, replies, width, number_of(line, "seconds"), most, 1); continue; }
    if (!confirms) { amqp_confirm_select(link_, 1); check("confirms"); confirms = 1; published = 0; }
    casts(topic, width, number_of(line, "seconds"), most);
  }
  return 0;
}
