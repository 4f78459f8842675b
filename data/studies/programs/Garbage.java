// SPDX-License-Identifier: GPL-2.0-only
// Four threads that make strings, keep a few in maps, and leave the rest to the collector.
import java.util.HashMap;
import java.util.Map;

public class Garbage {
	private static volatile long kept;

	public static void main(String[] words) throws InterruptedException {
		Thread[] threads = new Thread[4];
		for (int number = 0; number < threads.length; number++) {
			threads[number] = new Thread(Garbage::work);
			threads[number].start();
		}
		for (Thread thread : threads) {
			thread.join();
		}
		System.out.println(kept);
	}

	private static void work() {
		Map<Integer, String> some = new HashMap<>();
		for (int i = 0; i < 1_000_000; i++) {
			some.put(i % 20_000, Integer.toHexString(i).repeat(4));
		}
		kept += some.size();
	}
}
