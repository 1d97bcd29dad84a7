/* One line of the event file: a worker's pid and the monotonic time of the
   first act of its main(), in nanoseconds. All lines have the same length, so
   that a reader can count them by the file's size alone. */
#define EVENT_FORMAT "%10d %20lld\n"
#define EVENT_SIZE 32
