// SPDX-License-Identifier: GPL-2.0-only
// Objects that are made, some of them kept, and turned into JSON and back.
'use strict';
const kept = new Map();
for (let i = 0; i < 400000; i++) {
	kept.set(i % 20000, { number: i, name: `object ${i}`, list: [i, i + 1, i + 2] });
}
let bytes = 0;
for (let i = 0; i < 20; i++) {
	const text = JSON.stringify([...kept.values()]);
	bytes += text.length + JSON.parse(text).length;
}
console.log(bytes);
