/* The C ABI of libradbox_tflite.so: the two functions that every TFLite external delegate has, and two counts. */
#pragma once

#include "runtime.h"

#define RADBOX_TFLITE_API extern "C" __attribute__((visibility("default")))

/* No option is known. Null, and a sentence to `report`, if there is one or if the kernels cannot be used. */
RADBOX_TFLITE_API radbox::tflite::Delegate *tflite_plugin_create_delegate(const char *const *keys,
                                                                          const char *const *values, size_t count,
                                                                          void (*report)(const char *));
RADBOX_TFLITE_API void tflite_plugin_destroy_delegate(radbox::tflite::Delegate *delegate);

/* Since the library was loaded, in the whole process: nodes taken over, and times that one of them was computed. */
RADBOX_TFLITE_API int64_t radbox_tflite_nodes_taken(void);
RADBOX_TFLITE_API int64_t radbox_tflite_nodes_computed(void);
