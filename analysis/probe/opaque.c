// SPDX-License-Identifier: GPL-2.0-only
/*
 * SipHash-2-4 of one word (Aumasson and Bernstein, 2012), as the kernel's own %p, with a key that
 * is kept nowhere: equal addresses have equal ids within one execution, and that is all they tell.
 */
#include <sys/random.h>
#include "opaque.h"

static __u64 key[2];

static __u64 rotate(__u64 x, int by)
{
	return x << by | x >> (64 - by);
}

static void mix(__u64 v[4], int rounds)
{
	while (rounds--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

bool opaque_begin(void)
{
	return getrandom(key, sizeof(key), 0) == sizeof(key);
}

__u64 opaque(__u64 address)
{
	static const __u64 length = 8ULL << 56;
	__u64 v[4] = { key[0] ^ 0x736f6d6570736575ULL, key[1] ^ 0x646f72616e646f6dULL,
		       key[0] ^ 0x6c7967656e657261ULL, key[1] ^ 0x7465646279746573ULL };

	if (!address)
		return 0;
	v[3] ^= address;
	mix(v, 2);
	v[0] ^= address;
	v[3] ^= length;
	mix(v, 2);
	v[0] ^= length;
	v[2] ^= 0xff;
	mix(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
