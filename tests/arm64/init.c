/* The init process of the emulated machine: configures the network, starts the server as an unprivileged user, prints
 * facts about the machine and the io_uring instances of the server to the console, stops the server when it reads the
 * line "stop", and powers the machine off when the server has exited. The test cases are in run.sh. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* Guest address of QEMU user-mode networking. */
#define ADDRESS "10.0.2.15"
#define NETMASK "255.255.255.0"
/* The user of the image. */
#define USER 65532
/* run.sh has the same token. */
#define TOKEN_FILE "/tmp/admin-token"
#define TOKEN "arm64-guest-token-0123456789abcdef0123456789"
/* The limit of the nodes, see deploy/nodes/prepare.sh. */
#define MEMLOCK (64 << 20)

static void power_off(const char *why) {
  if (why) printf("guest: fatal: %s: %s\n", why, strerror(errno));
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  _exit(1);
}

static void load(const char *name) {
  char path[128];
  snprintf(path, sizeof path, "/modules/%s.ko", name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) return; /* built into this kernel */
    power_off(path);
  }
  if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST) power_off(path);
  close(fd);
}

static void set_up(int sock, const char *name, const char *address, const char *netmask) {
  struct ifreq want = {0};
  struct sockaddr_in *in = (struct sockaddr_in *)&want.ifr_addr;
  strncpy(want.ifr_name, name, IFNAMSIZ - 1);
  in->sin_family = AF_INET;
  inet_pton(AF_INET, address, &in->sin_addr);
  if (ioctl(sock, SIOCSIFADDR, &want)) power_off(name);
  inet_pton(AF_INET, netmask, &in->sin_addr);
  if (ioctl(sock, SIOCSIFNETMASK, &want)) power_off(name);
  if (ioctl(sock, SIOCGIFFLAGS, &want)) power_off(name);
  want.ifr_flags |= IFF_UP | IFF_RUNNING;
  if (ioctl(sock, SIOCSIFFLAGS, &want)) power_off(name);
}

/* Prints the first line of a file that starts with `key`. */
static void print_line(const char *path, const char *key) {
  char line[2048];
  FILE *file = fopen(path, "re");
  if (!file) return;
  while (fgets(line, sizeof line, file))
    if (!strncmp(line, key, strlen(key))) {
      printf("guest: %s", line);
      break;
    }
  fclose(file);
}

/* Number of io_uring descriptors of a process. */
static int rings(pid_t pid) {
  char dir[64], path[320], to[64];
  int found = 0;
  snprintf(dir, sizeof dir, "/proc/%d/fd", pid);
  DIR *open_files = opendir(dir);
  if (!open_files) return 0;
  for (struct dirent *one; (one = readdir(open_files));) {
    snprintf(path, sizeof path, "%s/%s", dir, one->d_name);
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) continue;
    to[n] = 0;
    found += !strcmp(to, "anon_inode:[io_uring]");
  }
  closedir(open_files);
  return found;
}

static pid_t serve(void) {
  static char *const argv[] = {"/inventory-api", "dev", "--memory", NULL};
  /* The admin port needs a token beyond loopback; the network of the guest is isolated, so that it is no secret. */
  static char *const env[] = {"GRPC_PORT=8080", "METRICS_PORT=9090", "ADMIN_PORT=8081", "ADMIN_HOST=0.0.0.0",
                              "ADMIN_TOKEN_FILE=" TOKEN_FILE,
                              "OTEL_TRACES_EXPORTER=none", "RUST_BACKTRACE=1", NULL};
  pid_t pid = fork();
  if (pid < 0) power_off("fork");
  if (pid) return pid;
  struct rlimit memlock = {MEMLOCK, MEMLOCK}, files = {65536, 65536};
  if (setrlimit(RLIMIT_MEMLOCK, &memlock) || setrlimit(RLIMIT_NOFILE, &files)) power_off("setrlimit");
  if (setgroups(0, NULL) || setgid(USER) || setuid(USER)) power_off("setuid");
  execve(argv[0], argv, env);
  printf("guest: %s: %s\n", argv[0], strerror(errno));
  fflush(stdout);
  _exit(127);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  mkdir("/proc", 0555), mkdir("/sys", 0555), mkdir("/dev", 0755), mkdir("/tmp", 01777);
  if (mount("proc", "/proc", "proc", 0, NULL) || mount("sys", "/sys", "sysfs", 0, NULL)) power_off("mount");
  if (mount("dev", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY) power_off("mount");
  if (mount("tmp", "/tmp", "tmpfs", 0, "mode=1777")) power_off("mount");
  load("failover"), load("net_failover"), load("virtio_net");
  int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sock < 0) power_off("socket");
  set_up(sock, "lo", "127.0.0.1", "255.0.0.0");
  set_up(sock, "eth0", ADDRESS, NETMASK);
  /* --forbid-io-uring sets this variable through the kernel command line, to prove that the test detects a failed
   * start. */
  if (getenv("forbid_io_uring")) {
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "2", 1) != 1) power_off("io_uring_disabled");
    close(fd);
  }
  struct utsname name;
  uname(&name);
  printf("guest: machine %s\nguest: kernel %s\n", name.machine, name.release);
  print_line("/proc/cpuinfo", "CPU part");
  print_line("/proc/cpuinfo", "Features");
  int token = open(TOKEN_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
  if (token < 0 || write(token, TOKEN, strlen(TOKEN)) < 0) power_off(TOKEN_FILE);
  close(token);
  pid_t server = serve();

  struct pollfd console = {.fd = 0, .events = POLLIN};
  int printed = 0, status = 0;
  for (;;) {
    char line[64];
    if (waitpid(server, &status, WNOHANG) == server) break;
    int now = rings(server);
    if (now > printed) printf("guest: rings %d\n", printed = now);
    if (poll(&console, 1, 200) == 1 && read(0, line, sizeof line) > 3 && !strncmp(line, "stop", 4)) {
      char path[64];
      snprintf(path, sizeof path, "/proc/%d/status", server);
      print_line(path, "Uid");
      print_line(path, "VmHWM");
      print_line(path, "VmPin");
      kill(server, SIGTERM);
    }
  }
  printf("guest: server ended %s %d\n", WIFEXITED(status) ? "with exit code" : "by signal",
         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  power_off(NULL);
}
