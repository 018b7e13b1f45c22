/* In the place of librknnrt.so and the NPU, for tests/test_rknn_emulated.py: the functions and structures of rknn_api.h
   that rknn-toolkit-lite2 calls. What it is told comes from the environment: RKNN_INIT, RKNN_MASK, RKNN_INPUTS, RKNN_RUN,
   RKNN_OUTPUTS, RKNN_DESTROY are return codes; RKNN_PICTURE is the file that gets the picture, RKNN_ANSWER the one that
   holds the outputs, float32 one after the other. Outputs stay those of the run before if a run fails. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERY_IN_OUT_NUM = 0, QUERY_INPUT_ATTR = 1, QUERY_OUTPUT_ATTR = 2, QUERY_SDK_VERSION = 5 };
enum { FORMAT_NCHW = 0, FORMAT_NHWC = 1, FORMAT_UNDEFINED = 3, TYPE_FLOAT16 = 1, PARAM_INVALID = -5 };

typedef struct { uint32_t n_input, n_output; } InOutNum;
typedef struct {
  uint32_t index, n_dims, dims[16];
  char name[256];
  uint32_t n_elems, size;
  int32_t fmt, type, qnt_type;
  int8_t fl;
  int32_t zp;
  float scale;
  uint32_t w_stride, size_with_stride;
  uint8_t pass_through;
  uint32_t h_stride;
} TensorAttr;
typedef struct { char api_version[256], drv_version[256]; } SdkVersion;
typedef struct { uint32_t index; void *buf; uint32_t size; uint8_t pass_through; int32_t type, fmt; } Input;
typedef struct { uint8_t want_float, is_prealloc; uint32_t index; void *buf; uint32_t size; } Output;

static const struct { const char *name; uint32_t n_dims, dims[4]; } OUTPUTS[] = {
  {"tokens", 3, {1, 256, 128}}, {"findings", 2, {1, 14}},       {"population", 2, {1, 1}},      {"chest", 2, {1, 1}},
  {"masks", 4, {1, 3, 16, 16}}, {"embedding", 2, {1, 128}},     {"maps", 4, {1, 14, 16, 16}},
};
enum { N_OUTPUTS = sizeof OUTPUTS / sizeof *OUTPUTS };

static int code(const char *name) {
  const char *value = getenv(name);
  return value ? atoi(value) : 0;
}

static uint32_t elements(uint32_t output) {
  uint32_t count = 1;
  for (uint32_t i = 0; i < OUTPUTS[output].n_dims; i++) count *= OUTPUTS[output].dims[i];
  return count;
}

static void describe(TensorAttr *attr, const char *name, uint32_t n_dims, const uint32_t *dims, int32_t fmt) {
  uint32_t index = attr->index;
  memset(attr, 0, sizeof *attr);
  attr->index = index;
  attr->n_dims = n_dims;
  memcpy(attr->dims, dims, n_dims * sizeof *dims);
  strcpy(attr->name, name);
  attr->n_elems = 1;
  for (uint32_t i = 0; i < n_dims; i++) attr->n_elems *= dims[i];
  attr->size = 2 * attr->n_elems;
  attr->fmt = fmt;
  attr->type = TYPE_FLOAT16;
}

int rknn_init(uint64_t *context, void *model, uint32_t size, uint32_t flag, void *extend) {
  (void)model, (void)size, (void)flag, (void)extend;
  *context = 1;
  return code("RKNN_INIT");
}

int rknn_destroy(uint64_t context) {
  (void)context;
  return code("RKNN_DESTROY");
}

int rknn_set_core_mask(uint64_t context, int32_t mask) {
  (void)context;
  const char *expected = getenv("RKNN_CORES");
  return expected && mask != atoi(expected) ? PARAM_INVALID : code("RKNN_MASK");
}

int rknn_query(uint64_t context, int32_t command, void *info, uint32_t size) {
  static const uint32_t PICTURE[] = {1, 256, 256, 1};
  (void)context, (void)size;
  if (command == QUERY_IN_OUT_NUM) {
    *(InOutNum *)info = (InOutNum){1, N_OUTPUTS};
  } else if (command == QUERY_INPUT_ATTR) {
    describe(info, "image", 4, PICTURE, FORMAT_NHWC);
  } else if (command == QUERY_OUTPUT_ATTR && ((TensorAttr *)info)->index < N_OUTPUTS) {
    uint32_t i = ((TensorAttr *)info)->index;
    int32_t fmt = OUTPUTS[i].n_dims == 4 ? FORMAT_NCHW : FORMAT_UNDEFINED;
    describe(info, OUTPUTS[i].name, OUTPUTS[i].n_dims, OUTPUTS[i].dims, fmt);
  } else if (command == QUERY_SDK_VERSION) {
    strcpy(((SdkVersion *)info)->api_version, "2.5.0 (stand-in)");
    strcpy(((SdkVersion *)info)->drv_version, "0.9.8");
  } else {
    return PARAM_INVALID;
  }
  return 0;
}

int rknn_inputs_set(uint64_t context, uint32_t count, Input *inputs) {
  (void)context;
  FILE *file = getenv("RKNN_PICTURE") ? fopen(getenv("RKNN_PICTURE"), "wb") : NULL;
  if (count != 1 || inputs->type != 0 || inputs->fmt != FORMAT_NHWC || inputs->pass_through || !file) return -8;
  fwrite(inputs->buf, 1, inputs->size, file);
  fclose(file);
  return code("RKNN_INPUTS");
}

int rknn_run(uint64_t context, void *extend) {
  (void)context, (void)extend;
  return code("RKNN_RUN");
}

int rknn_outputs_get(uint64_t context, uint32_t count, Output *outputs, void *extend) {
  (void)context, (void)extend;
  FILE *file = getenv("RKNN_ANSWER") ? fopen(getenv("RKNN_ANSWER"), "rb") : NULL;
  if (code("RKNN_OUTPUTS") || count != N_OUTPUTS || !file) {
    if (file) fclose(file);
    return code("RKNN_OUTPUTS") ? code("RKNN_OUTPUTS") : -9;
  }
  size_t read = 0, wanted = 0;
  for (uint32_t i = 0; i < count; i++) {
    outputs[i].size = 4 * elements(i);
    if (!outputs[i].is_prealloc) outputs[i].buf = malloc(outputs[i].size);
    read += fread(outputs[i].buf, 1, outputs[i].size, file);
    wanted += outputs[i].size;
    if (!outputs[i].want_float) read = 0;
  }
  fclose(file);
  return read == wanted ? 0 : -9;
}

int rknn_outputs_release(uint64_t context, uint32_t count, Output *outputs) {
  (void)context;
  for (uint32_t i = 0; i < count; i++)
    if (!outputs[i].is_prealloc) free(outputs[i].buf);
  return 0;
}

#ifndef OLD /* a library that is older than the package */
int rknn_set_input_shapes(uint64_t context, uint32_t count, TensorAttr *attrs) {
  (void)context, (void)count, (void)attrs;
  return PARAM_INVALID;
}

int rknn_set_input_shape(uint64_t context, TensorAttr *attr) {
  (void)context, (void)attr;
  return PARAM_INVALID;
}
#endif
