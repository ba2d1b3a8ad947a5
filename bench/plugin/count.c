// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU's emulation that counts the instructions of the guest's kernel, and of its modules apart:
 *
 *	-plugin libcount.so,counts=FILE
 *
 * FILE holds struct counts, and the sums are copied there every millisecond for another process to read. What is
 * used of the plugin interface (version 7: QEMU 11.1) is declared here, as Debian packages no header for it.
 */

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

/* Where a kernel with nokaslr has its own half of the address space, and its modules. */
#define KERNEL_START	0x8000000000000000
#define MODULES_START	0xffffffffc0000000

/* What a processor has executed: its part of the scoreboard. */
struct score {
	uint64_t kernel, modules;
};

/* The file: sums over all processors, and how often they were copied. */
struct counts {
	uint64_t copies;
	struct score sums;
};

static qemu_plugin_u64 kernel, modules;

/* The instructions of a block are counted when it is entered. */
static void translated(struct qemu_plugin_tb *tb, void *userdata)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	size_t instructions = qemu_plugin_tb_n_insns(tb);

	if (address >= KERNEL_START)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD, kernel, instructions);
	if (address >= MODULES_START)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, INLINE_ADD, modules, instructions);
}

static void *copy(void *counts)
{
	volatile struct counts *file = counts;

	for (;;) {
		file->sums.kernel = qemu_plugin_u64_sum(kernel);
		file->sums.modules = qemu_plugin_u64_sum(modules);
		__atomic_add_fetch(&file->copies, 1, __ATOMIC_RELEASE);
		usleep(1000);
	}
	return NULL;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	struct qemu_plugin_scoreboard *board;
	struct counts *counts;
	pthread_t thread;
	int file;

	if (argc != 1 || strncmp(argv[0], "counts=", 7)) {
		fprintf(stderr, "count: counts=FILE is wanted\n");
		return -1;
	}
	file = open(argv[0] + 7, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
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
	board = qemu_plugin_scoreboard_new(sizeof(struct score));
	kernel = (qemu_plugin_u64){ board, offsetof(struct score, kernel) };
	modules = (qemu_plugin_u64){ board, offsetof(struct score, modules) };
	if (pthread_create(&thread, NULL, copy, counts)) {
		fprintf(stderr, "count: no thread\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	return 0;
}
