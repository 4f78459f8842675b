// SPDX-License-Identifier: GPL-2.0-only
/* SHA-256 (FIPS 180-4), so that what crosses a link can be checked where there is no sha256sum. */
#include <stdio.h>
#include <string.h>
#include "guest.h"

static const uint32_t constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, int by)
{
	return word >> by | word << (32 - by);
}

static void mix(uint32_t state[8], const uint8_t block[64])
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 |
		       block[4 * i + 2] << 8 | block[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, state, sizeof(s));
#define AT(n) s[((n) - i) & 7]		/* instead of moving all eight each time */
#pragma GCC unroll 8
	for (int i = 0; i < 64; i++) {
		uint32_t e = AT(4), a = AT(0), one, two;

		one = AT(7) + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
		      ((e & AT(5)) ^ (~e & AT(6))) + constants[i] + w[i];
		two = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) +
		      ((a & AT(1)) ^ (a & AT(2)) ^ (AT(1) & AT(2)));
		AT(3) += one;
		AT(7) = one + two;
	}
#undef AT
	for (int i = 0; i < 8; i++)
		state[i] += s[i];
}

void sha256_begin(struct sha256 *hash)
{
	static const uint32_t first[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};

	memcpy(hash->state, first, sizeof(first));
	hash->length = 0;
}

void sha256_add(struct sha256 *hash, const void *bytes, size_t length)
{
	const uint8_t *from = bytes;

	while (length) {
		size_t used = hash->length % 64, part = 64 - used < length ? 64 - used : length;

		memcpy(hash->block + used, from, part);
		hash->length += part;
		from += part;
		length -= part;
		if (hash->length % 64 == 0)
			mix(hash->state, hash->block);
	}
}

void sha256_end(struct sha256 *hash, char digits[65])
{
	static const uint8_t padding[64] = { 0x80 };
	uint64_t bits = hash->length * 8;
	uint8_t length[8];

	for (int i = 0; i < 8; i++)
		length[i] = bits >> (56 - 8 * i);
	sha256_add(hash, padding, 1 + (119 - hash->length % 64) % 64);
	sha256_add(hash, length, sizeof(length));
	for (int i = 0; i < 8; i++)
		sprintf(digits + 8 * i, "%08x", hash->state[i]);
}
