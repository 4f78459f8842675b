// SPDX-License-Identifier: GPL-2.0-only
// A program whose profile is known: each function spins until its thread has used up a quota of
// processor time, so that shares do not depend on how fast the machine is, or how busy.
//
//   quotas of 1 each: a recursion, an inlined chain, a C++ template, two names of Rust
//   threads "three" and "one": quotas of 3 and 1
//   the main thread's name holds a blank, a newline, what looks like a sample, and a byte that is
//   not UTF-8
#include <cstdlib>
#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>

static long quota;	// ns

static inline __attribute__((always_inline)) long used(void)
{
	timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

// Rarely looks at the clock, which is a system call.
static inline __attribute__((always_inline)) void spin(long shares)
{
	long end = used() + shares * quota;
	volatile long x = 0;

	do
		for (int i = 0; i < 200000; i++)
			x = x + 1;
	while (used() < end);
}

extern "C" __attribute__((noinline)) int recurse(int depth)
{
	if (!depth)
		spin(1);
	else
		recurse(depth - 1);
	asm volatile("");	// no tail call
	return depth;
}

static inline __attribute__((always_inline)) void innermost(void) { spin(1); }
static inline __attribute__((always_inline)) void middle(void) { innermost(); }
extern "C" __attribute__((noinline)) void outermost(void)
{
	middle();
	asm volatile("");
}

namespace deep {
template <class T> struct Holder {
	__attribute__((noinline)) void work(T) { spin(1); asm volatile(""); }
};
}

// As rustc calls <alloc::vec::Vec<T> as Grow>::grow in its older scheme, and known::rusty in its
// newer one.
extern "C" __attribute__((noinline)) void rust_legacy(void)
	asm("_ZN56_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$known..Grow$GT$4grow17h0123456789abcdefE");
extern "C" void rust_legacy(void) { spin(1); asm volatile(""); }

extern "C" __attribute__((noinline)) void rust_v0(void) asm("_RNvCs1234_5known5rusty");
extern "C" void rust_v0(void) { spin(1); asm volatile(""); }

extern "C" __attribute__((noinline)) void *three(void *)
{
	prctl(PR_SET_NAME, "three");
	spin(3);
	asm volatile("");
	return nullptr;
}

extern "C" __attribute__((noinline)) void *one(void *)
{
	prctl(PR_SET_NAME, "one");
	spin(1);
	asm volatile("");
	return nullptr;
}

int main(int argc, char **argv)
{
	pthread_t threads[2];

	quota = (argc > 1 ? atol(argv[1]) : 100) * 1000000;
	prctl(PR_SET_NAME, "a b\n\n1/1 [0]\xff\t");
	pthread_create(&threads[0], nullptr, three, nullptr);
	pthread_create(&threads[1], nullptr, one, nullptr);
	recurse(20);
	outermost();
	deep::Holder<long>().work(0);
	rust_legacy();
	rust_v0();
	for (pthread_t thread : threads)
		pthread_join(thread, nullptr);
	return 0;
}
