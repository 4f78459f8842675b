// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stacks of user mode as the names of functions.
 *
 * Which file lies where is read from /proc/PID/maps while the process lives: when it
 * is first seen and, since libraries come a little later, again after 1, 2, 4, ...
 * looks. It takes mmap_lock, so this is done only where stacks are asked for. A process
 * that is gone before the first look lends its parent's mappings if it was forked.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "faults.h"
#include "follow_tasks.h"
#include "json.h"
#include "kallsyms.h"
#include "output.h"
#include "user_stacks.h"

struct mapping {
	__u64 start, end, offset;
	char *path;
};

struct image {				/* of a program in a process, by the number of that */
	struct traced_process process;
	struct buffer mappings;
	unsigned int looks;
	bool over;			/* it has exec'ed, or it is gone */
};

struct user_images {
	struct bpf_object *object;
	struct buffer images;		/* struct image, process.id - 1 its index */
};

/* ---- which file lies where ---- */

struct user_images *user_images_new(struct bpf_object *object)
{
	struct user_images *images = calloc(1, sizeof(*images));

	if (images)
		images->object = object;
	return images;
}

static struct image *image_of(struct user_images *images, __u32 process)
{
	size_t count = images->images.size / sizeof(struct image);

	return process && process <= count ? (struct image *)images->images.data + process - 1 : NULL;
}

static void drop_mappings(struct buffer *mappings)
{
	struct mapping *mapping = (void *)mappings->data;

	for (size_t i = 0; i < mappings->size / sizeof(*mapping); i++)
		free(mapping[i].path);
	mappings->size = 0;
}

static void read_mappings(struct image *image)
{
	char path[64], line[PATH_LEN_MAX + 256], prot[5];
	struct buffer found = {};
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%u/maps", image->process.tgid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		struct mapping mapping = {};
		int at = 0;

		if (sscanf(line, "%llx-%llx %4s %llx %*s %*s %n", &mapping.start, &mapping.end, prot,
			   &mapping.offset, &at) != 4 || prot[2] != 'x' || line[at] != '/')
			continue;
		line[strcspn(line, "\n")] = '\0';
		mapping.path = strdup(line + at);
		append(&found, &mapping, sizeof(mapping));
	}
	if (file)
		fclose(file);
	if (!found.size) {
		image->over = true;	/* the last look stays */
		free(found.data);
		return;
	}
	drop_mappings(&image->mappings);
	free(image->mappings.data);
	image->mappings = found;
}

static void note_new(struct user_images *images)
{
	int map = bpf_object__find_map_fd_by_name(images->object, "processes");
	size_t known = images->images.size / sizeof(struct image);
	struct tracing tracing = {};

	read_bss(images->object, ".bss.tracing", &tracing, sizeof(tracing));
	for (__u32 id = known + 1; id <= tracing.next_process; id++) {
		struct image image = {};

		if (bpf_map_lookup_elem(map, &id, &image.process))
			image.over = true;
		/* What it was before is not there to be looked at any more. */
		if (image.process.how == TRACED_EXECED && image_of(images, image.process.parent))
			image_of(images, image.process.parent)->over = true;
		if (!append(&images->images, &image, sizeof(image)))
			return;
	}
}

void user_images_look(struct user_images *images)
{
	struct image *image;
	size_t count;

	note_new(images);
	image = (void *)images->images.data;
	count = images->images.size / sizeof(*image);
	for (size_t i = 0; i < count; i++) {
		unsigned int look = image[i].looks++;

		if (!image[i].over && !(look & (look - 1)))
			read_mappings(&image[i]);
	}
}

static const struct mapping *mapping_at(struct user_images *images, __u32 process, __u64 address)
{
	struct image *image = image_of(images, process);

	while (image && !image->mappings.size && image->process.how == TRACED_FORKED)
		image = image_of(images, image->process.parent);
	if (!image)
		return NULL;
	for (size_t i = 0; i < image->mappings.size / sizeof(struct mapping); i++) {
		const struct mapping *mapping = (struct mapping *)image->mappings.data + i;

		if (mapping->start <= address && address < mapping->end)
			return mapping;
	}
	return NULL;
}

/* ---- the functions in a file ---- */

struct function {
	__u64 address, size;
	char *name;
};

struct program {
	char *path;
	struct buffer functions;	/* struct function, by address */
	struct buffer segments;		/* GElf_Phdr that is loaded */
};

static int by_address(const void *a, const void *b)
{
	const struct function *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

static void add_functions(struct program *program, Elf *elf, Elf_Scn *section, const GElf_Shdr *header)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t count = header->sh_entsize ? header->sh_size / header->sh_entsize : 0;
	GElf_Sym symbol;

	for (size_t i = 0; data && i < count && gelf_getsym(data, i, &symbol); i++) {
		struct function function = { .address = symbol.st_value, .size = symbol.st_size };
		const char *name = elf_strptr(elf, header->sh_link, symbol.st_name);

		if (GELF_ST_TYPE(symbol.st_info) != STT_FUNC || !symbol.st_value || !name)
			continue;
		function.name = strdup(name);
		append(&program->functions, &function, sizeof(function));
	}
}

static void read_program(struct program *program)
{
	int fd = open(program->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	Elf *elf = fd < 0 ? NULL : elf_begin(fd, ELF_C_READ_MMAP, NULL);
	Elf_Scn *section = NULL;
	GElf_Shdr header;
	GElf_Phdr segment;
	size_t segments = 0;

	if (elf && elf_getphdrnum(elf, &segments))
		segments = 0;
	for (size_t i = 0; i < segments; i++)
		if (gelf_getphdr(elf, i, &segment) && segment.p_type == PT_LOAD)
			append(&program->segments, &segment, sizeof(segment));
	while (elf && (section = elf_nextscn(elf, section)))
		if (gelf_getshdr(section, &header) &&
		    (header.sh_type == SHT_SYMTAB || header.sh_type == SHT_DYNSYM))
			add_functions(program, elf, section, &header);
	if (program->functions.size)
		qsort(program->functions.data, program->functions.size / sizeof(struct function),
		      sizeof(struct function), by_address);
	elf_end(elf);
	if (fd >= 0)
		close(fd);
}

static struct program *program_at(struct buffer *programs, const char *path)
{
	struct program *program = (void *)programs->data, fresh = {};

	for (size_t i = 0; i < programs->size / sizeof(*program); i++)
		if (!strcmp(program[i].path, path))
			return &program[i];
	fresh.path = strdup(path);
	read_program(&fresh);
	return append(programs, &fresh, sizeof(fresh));
}

static void drop_programs(struct buffer *programs)
{
	struct program *program = (void *)programs->data;

	for (size_t i = 0; i < programs->size / sizeof(*program); i++) {
		struct function *function = (void *)program[i].functions.data;

		for (size_t f = 0; f < program[i].functions.size / sizeof(*function); f++)
			free(function[f].name);
		free(program[i].functions.data);
		free(program[i].segments.data);
		free(program[i].path);
	}
	free(programs->data);
}

/* The function around a place in a file; NULL where the file names none there. */
static const char *function_at(const struct program *program, __u64 offset)
{
	const GElf_Phdr *segment = (void *)program->segments.data;
	const struct function *function = (void *)program->functions.data, *found = NULL;
	__u64 address = 0;

	for (size_t i = 0; i < program->segments.size / sizeof(*segment); i++)
		if (segment[i].p_offset <= offset &&
		    offset < segment[i].p_offset + segment[i].p_filesz)
			address = offset - segment[i].p_offset + segment[i].p_vaddr;
	for (size_t i = 0; address && i < program->functions.size / sizeof(*function); i++) {
		if (function[i].address > address)
			break;
		if (address < function[i].address + function[i].size)
			found = &function[i];
	}
	return found ? found->name : NULL;
}

/* ---- the result ---- */

/* By function; else by file and offset, which addr2line knows; else unknown, never an address. */
static void print_frame(FILE *file, struct user_images *images, struct buffer *programs,
			__u32 process, __u64 address)
{
	const struct mapping *mapping = mapping_at(images, process, address);
	__u64 offset = mapping ? address - mapping->start + mapping->offset : 0;
	const struct program *program = mapping ? program_at(programs, mapping->path) : NULL;
	const char *name = program ? function_at(program, offset) : NULL;
	char place[300];

	if (!name && mapping) {
		snprintf(place, sizeof(place), "%.255s+0x%llx", strrchr(mapping->path, '/') + 1, offset);
		name = place;
	}
	json_string(file, name ? name : "unknown");
}

void user_stacks_print(FILE *file, struct user_images *images, int map, const struct user_stack *stacks,
		       size_t count)
{
	struct buffer programs = {};
	__u64 stack[STACK_DEPTH];
	const char *before = "";

	elf_version(EV_CURRENT);
	fputs("  \"user_stacks\": {", file);
	for (size_t i = 0; i < count; i++) {
		if (bpf_map_lookup_elem(map, &stacks[i].id, stack))
			continue;
		fprintf(file, "%s\n    \"%u:%d\": [", before, stacks[i].process, stacks[i].id);
		for (size_t frame = 0; frame < STACK_DEPTH && stack[frame]; frame++) {
			fputs(frame ? ", " : "", file);
			print_frame(file, images, &programs, stacks[i].process, stack[frame]);
		}
		putc(']', file);
		before = ",";
	}
	fputs("\n  },\n", file);
	drop_programs(&programs);
}

void user_images_free(struct user_images *images)
{
	struct image *image = images ? (void *)images->images.data : NULL;

	for (size_t i = 0; image && i < images->images.size / sizeof(*image); i++) {
		drop_mappings(&image[i].mappings);
		free(image[i].mappings.data);
	}
	if (images)
		free(images->images.data);
	free(images);
}
