// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's emulation that counts the instructions of the guest's kernel, block by block:
 *
 *	-plugin libcount.so,counts=FILE
 *
 * FILE holds struct counts, and the sums are copied there all the time for another process to read. What is used
 * of the plugin interface (version 7: QEMU 11.1) is declared here, as Debian packages no header for it.
 */

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_scoreboard;
struct qemu_info;

typedef uint64_t plugin_id;
typedef struct {
	struct qemu_plugin_scoreboard *board;
	size_t offset;
} qemu_plugin_u64;

enum { INLINE_ADD };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*cb)(struct qemu_plugin_tb *, void *), void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *tb, int op, qemu_plugin_u64 entry,
						       uint64_t operand);
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry);

EXPORT int qemu_plugin_version = 7;

/* Where a kernel has its own half of the address space. */
#define KERNEL_START	0x8000000000000000

/* More than any kernel comes to. */
#define MAX_BLOCKS	(1 << 18)

/* What is executed from an address on, up to the next branch or so. */
struct block {
	uint64_t address;
	uint64_t instructions;
};

/* The file. Blocks keep their places. */
struct counts {
	uint64_t copies;
	uint64_t len;
	struct block blocks[MAX_BLOCKS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct counts *counts;
/* Places of blocks, counted from 1 on, by a hash of their addresses. */
static uint32_t numbers[2 * MAX_BLOCKS];
/* What a processor has executed of each block. */
static struct qemu_plugin_scoreboard *board;

static qemu_plugin_u64 score(size_t place)
{
	return (qemu_plugin_u64){ board, place * sizeof(uint64_t) };
}

/* The place of a block, which is given one if it has none. */
static size_t place(uint64_t address)
{
	size_t slot = address * 0x9e3779b97f4a7c15 >> 45;
	size_t place;

	pthread_mutex_lock(&lock);
	while (numbers[slot] && counts->blocks[numbers[slot] - 1].address != address)
		slot = (slot + 1) % (2 * MAX_BLOCKS);
	if (!numbers[slot]) {
		if (counts->len == MAX_BLOCKS) {
			fprintf(stderr, "count: more than %d blocks\n", MAX_BLOCKS);
			abort();
		}
		counts->blocks[counts->len].address = address;
		numbers[slot] = counts->len + 1;
		__atomic_store_n(&counts->len, counts->len + 1, __ATOMIC_RELEASE);
	}
	place = numbers[slot] - 1;
	pthread_mutex_unlock(&lock);
	return place;
}

/* The instructions of a block are counted when it is entered. */
static void translated(struct qemu_plugin_tb *tb, void *userdata)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);

	if (address >= KERNEL_START)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD, score(place(address)),
								  qemu_plugin_tb_n_insns(tb));
}

static void *copy(void *unused)
{
	for (;;) {
		size_t len = __atomic_load_n(&counts->len, __ATOMIC_ACQUIRE);

		for (size_t place = 0; place < len; place++)
			counts->blocks[place].instructions = qemu_plugin_u64_sum(score(place));
		__atomic_add_fetch(&counts->copies, 1, __ATOMIC_RELEASE);
		usleep(10000);
	}
	return NULL;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	pthread_t thread;
	int file;

	if (argc != 1 || strncmp(argv[0], "counts=", 7)) {
		fprintf(stderr, "count: counts=FILE is wanted\n");
		return -1;
	}
	file = open(argv[0] + 7, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file < 0 || ftruncate(file, sizeof(*counts))) {
		perror(argv[0]);
		return -1;
	}
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (counts == MAP_FAILED) {
		perror("count: mmap");
		return -1;
	}
	board = qemu_plugin_scoreboard_new(MAX_BLOCKS * sizeof(uint64_t));
	if (pthread_create(&thread, NULL, copy, NULL)) {
		fprintf(stderr, "count: no thread\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
