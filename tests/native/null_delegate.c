/* An external TFLite delegate without hardware: it really computes ADD, RELU and FLOOR_MOD, or fails as it is told.
 * It also computes NullRemainder, (x + a) mod d with numbers a and d: a custom operator that no runtime knows, as files
 * hold them that a maker's compiler wrote.
 *
 * Options: ops     which of add, relu, floor_mod, custom it takes, separated by commas (add)
 *          fault   what goes wrong (nothing): refuse, refuse-silently, crash-create, hang-create, take-nothing,
 *                  prepare-error, crash-prepare, kernel-error, crash-invoke, hang-invoke, invoke-error, slow, wrong,
 *                  exit (the whole process ends, as if all were well)
 * A partition of equal float tensors is computed in tiles through all its nodes, so that nothing leaves the cache. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tflite_abi.h"

#define EXPORT __attribute__((visibility("default")))
enum { TILE = 1024, SLOW_TIMES = 25 };

typedef struct { char fault[32], ops[64]; } Options;
typedef struct { int op, a, b, c, out, activation; } Step;
typedef struct {
  const Options* options;
  int steps, tensors, tile;
  Step* step;
  char** scratch; /* one for each tensor that stays inside the partition, else NULL */
} Kernel;

static int claimed, invoked, live;
EXPORT int null_delegate_claimed(void) { return claimed; }
EXPORT int null_delegate_invoked(void) { return invoked; }
EXPORT int null_delegate_live(void) { return live; }

static int is(const Options* options, const char* fault) { return !strcmp(options->fault, fault); }
static void crash(void) { *(volatile int*)0 = 0; }
static void hang(void) { for (;;) pause(); }

static int count_of(const TflTensor* tensor) {
  int count = 1;
  for (int i = 0; i < tensor->dims->size; ++i) count *= tensor->dims->data[i];
  return count;
}

static const char* name_of(int builtin) {
  switch (builtin) {
    case TFL_ADD: return "add";
    case TFL_RELU: return "relu";
    case TFL_FLOOR_MOD: return "floor_mod";
    case TFL_CUSTOM: return "custom";
    default: return NULL;
  }
}

static int listed(const char* ops, const char* name) {
  size_t length = strlen(name);
  for (const char* at = ops; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
    if (!strncmp(at, name, length) && (at[length] == ',' || !at[length])) return 1;
  return 0;
}

/* What it can compute: float32 or int8, the second operand as long as the first or a single number. */
static int takes(const TflContext* context, const TflNode* node, const TflRegistration* registration,
                 const Options* options) {
  int builtin = registration->builtin_code;
  const char* name = name_of(builtin);
  if (builtin == TFL_CUSTOM && (!registration->custom_name || strcmp(registration->custom_name, "NullRemainder")))
    return 0;
  if (!name || is(options, "take-nothing") || !listed(options->ops, name)) return 0;
  const TflTensor* a = &context->tensors[node->inputs->data[0]];
  const TflTensor* out = &context->tensors[node->outputs->data[0]];
  if (a->type != out->type || count_of(a) != count_of(out)) return 0;
  if (a->type != TFL_FLOAT32 && !(a->type == TFL_INT8 && builtin == TFL_ADD)) return 0;
  if (builtin == TFL_RELU) return 1;
  const TflTensor* b = &context->tensors[node->inputs->data[1]];
  int activation = builtin == TFL_ADD ? *(const int*)node->builtin_data : TFL_ACT_NONE;
  return b->type == a->type && (count_of(b) == count_of(a) || count_of(b) == 1) &&
         (activation == TFL_ACT_NONE || activation == TFL_ACT_RELU || activation == TFL_ACT_RELU6);
}

static char* data_of(TflContext* context, const Kernel* kernel, int tensor) {
  return kernel->scratch[tensor] ? kernel->scratch[tensor] : context->tensors[tensor].data;
}

static float activated(float y, int activation) {
  if (activation != TFL_ACT_NONE && y < 0) y = 0;
  return activation == TFL_ACT_RELU6 && y > 6 ? 6 : y;
}

static float remainder_of(float a, float divisor) { /* with the divisor's sign; a test's quotients fit an int */
  float quotient = a / divisor, whole = (float)(int)quotient;
  return a - divisor * (whole > quotient ? whole - 1 : whole);
}

static void compute_float(const Step* step, const float* a, const float* b, int b_step, const float* c, float* y,
                          int count) {
  if (step->op == TFL_RELU) {
    for (int i = 0; i < count; ++i) y[i] = a[i] > 0 ? a[i] : 0;
  } else if (step->op == TFL_ADD) {
    for (int i = 0; i < count; ++i) y[i] = activated(a[i] + b[i * b_step], step->activation);
  } else if (step->op == TFL_FLOOR_MOD) {
    for (int i = 0; i < count; ++i) y[i] = remainder_of(a[i], b[i * b_step]);
  } else {
    for (int i = 0; i < count; ++i) y[i] = remainder_of(a[i] + b[0], c[0]);
  }
}

static void compute_int8(TflContext* context, const Step* step, const int8_t* a, const int8_t* b, int8_t* y) {
  TflScale qa = context->tensors[step->a].scale, qb = context->tensors[step->b].scale;
  TflScale qy = context->tensors[step->out].scale;
  int count = count_of(&context->tensors[step->out]), b_step = count_of(&context->tensors[step->b]) > 1;
  for (int i = 0; i < count; ++i) {
    float sum = qa.scale * (a[i] - qa.zero_point) + qb.scale * (b[i * b_step] - qb.zero_point);
    float rounded = nearbyintf(activated(sum, step->activation) / qy.scale) + (float)qy.zero_point;
    y[i] = (int8_t)(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
  }
}

static void compute(TflContext* context, const Kernel* kernel, const Step* step, int start, int count) {
  char *a = data_of(context, kernel, step->a), *b = data_of(context, kernel, step->b);
  char* y = data_of(context, kernel, step->out);
  if (context->tensors[step->out].type == TFL_INT8) {
    compute_int8(context, step, (const int8_t*)a, (const int8_t*)b, (int8_t*)y);
    return;
  }
  int b_step = count_of(&context->tensors[step->b]) > 1;
  int in_a = kernel->scratch[step->a] && kernel->tile == TILE ? 0 : start;
  int in_b = kernel->scratch[step->b] && kernel->tile == TILE ? 0 : start;
  int in_y = kernel->scratch[step->out] && kernel->tile == TILE ? 0 : start;
  const float* c = (const float*)data_of(context, kernel, step->c);
  compute_float(step, (float*)a + in_a, (float*)b + in_b * b_step, b_step, c, (float*)y + in_y, count);
}

static void compute_all(TflContext* context, const Kernel* kernel) {
  if (kernel->tile == TILE) {
    int total = count_of(&context->tensors[kernel->step[0].out]);
    for (int start = 0; start < total; start += TILE)
      for (int i = 0; i < kernel->steps; ++i)
        compute(context, kernel, &kernel->step[i], start, total - start < TILE ? total - start : TILE);
  } else {
    for (int i = 0; i < kernel->steps; ++i)
      compute(context, kernel, &kernel->step[i], 0, count_of(&context->tensors[kernel->step[i].out]));
  }
}

static int kernel_invoke(TflContext* context, TflNode* node) {
  const Kernel* kernel = node->user_data;
  ++invoked;
  if (is(kernel->options, "crash-invoke")) crash();
  if (is(kernel->options, "hang-invoke")) hang();
  if (is(kernel->options, "invoke-error")) return TFL_ERROR;
  for (int times = is(kernel->options, "slow") ? SLOW_TIMES : 1; times > 0; --times) compute_all(context, kernel);
  if (is(kernel->options, "wrong"))
    for (int i = 0; i < node->outputs->size; ++i)
      memset(context->tensors[node->outputs->data[i]].data, 0x3f, context->tensors[node->outputs->data[i]].bytes);
  return TFL_OK;
}

static int kernel_prepare(TflContext* context, TflNode* node) {
  (void)context;
  return is(((Kernel*)node->user_data)->options, "kernel-error") ? TFL_ERROR : TFL_OK;
}

static void kernel_free(TflContext* context, void* buffer) {
  (void)context;
  Kernel* kernel = buffer;
  for (int i = 0; i < kernel->tensors; ++i) free(kernel->scratch[i]);
  free(kernel->scratch);
  free(kernel->step);
  free(kernel);
}

static int holds(const TflIntArray* array, int value) {
  for (int i = 0; i < array->size; ++i)
    if (array->data[i] == value) return 1;
  return 0;
}

static int can_tile(const TflContext* context, const Kernel* kernel) {
  int count = count_of(&context->tensors[kernel->step[0].out]);
  for (int i = 0; i < kernel->steps; ++i) {
    const TflTensor* out = &context->tensors[kernel->step[i].out];
    if (out->type != TFL_FLOAT32 || count_of(out) != count) return 0;
  }
  return 1;
}

static void* kernel_init(TflContext* context, const char* buffer, size_t length) {
  (void)length;
  const TflDelegateParams* params = (const TflDelegateParams*)buffer;
  Kernel* kernel = calloc(1, sizeof *kernel);
  kernel->options = params->delegate->data;
  kernel->steps = params->nodes_to_replace->size;
  kernel->step = calloc((size_t)kernel->steps, sizeof *kernel->step);
  kernel->tensors = (int)context->tensors_size;
  kernel->scratch = calloc(context->tensors_size, sizeof *kernel->scratch);
  for (int i = 0; i < kernel->steps; ++i) {
    TflNode* node;
    TflRegistration* registration;
    context->GetNodeAndRegistration(context, params->nodes_to_replace->data[i], &node, &registration);
    int last = node->inputs->size - 1;
    int activation = registration->builtin_code == TFL_ADD ? *(const int*)node->builtin_data : TFL_ACT_NONE;
    kernel->step[i] = (Step){registration->builtin_code, node->inputs->data[0], node->inputs->data[last > 0],
                             node->inputs->data[last], node->outputs->data[0], activation};
  }
  kernel->tile = can_tile(context, kernel) ? TILE : 0;
  for (int i = 0; i < kernel->steps; ++i) {
    int out = kernel->step[i].out;
    if (!holds(params->output_tensors, out))
      kernel->scratch[out] = malloc(kernel->tile ? TILE * sizeof(float) : context->tensors[out].bytes);
  }
  return kernel;
}

static int prepare(TflContext* context, TflDelegate* delegate) {
  const Options* options = delegate->data;
  if (is(options, "prepare-error")) return TFL_ERROR;
  if (is(options, "crash-prepare")) crash();
  TflIntArray* plan;
  if (context->GetExecutionPlan(context, &plan) != TFL_OK) return TFL_ERROR;
  int size = plan->size; /* its memory is the runtime's, and goes with the next call */
  int* order = malloc(sizeof *order * (size_t)size);
  memcpy(order, plan->data, sizeof *order * (size_t)size);
  TflIntArray* mine = calloc(1, sizeof *mine + sizeof(int) * (size_t)size);
  for (int i = 0; i < size; ++i) {
    TflNode* node;
    TflRegistration* registration;
    if (context->GetNodeAndRegistration(context, order[i], &node, &registration) != TFL_OK) continue;
    if (takes(context, node, registration, options)) mine->data[mine->size++] = order[i];
  }
  claimed = mine->size;
  TflRegistration kernel = {.init = kernel_init, .free = kernel_free, .prepare = kernel_prepare,
                            .invoke = kernel_invoke, .builtin_code = TFL_DELEGATE,
                            .custom_name = "NullDelegate", .version = 1};
  int status = context->ReplaceNodeSubsetsWithDelegateKernels(context, kernel, mine, delegate);
  free(mine);
  free(order);
  return status;
}

EXPORT TflDelegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values, size_t count,
                                                  void (*report_error)(const char*)) {
  Options* options = calloc(1, sizeof *options);
  strcpy(options->ops, "add");
  for (size_t i = 0; i < count; ++i) {
    if (!strcmp(keys[i], "fault")) snprintf(options->fault, sizeof options->fault, "%s", values[i]);
    else if (!strcmp(keys[i], "ops")) snprintf(options->ops, sizeof options->ops, "%s", values[i]);
    else { report_error("unknown option"); free(options); return NULL; }
  }
  printf("null delegate: a maker's library may print what it likes\n");
  fflush(stdout);
  if (is(options, "refuse")) report_error("no accelerator\n on this machine");
  if (is(options, "refuse") || is(options, "refuse-silently")) { free(options); return NULL; }
  if (is(options, "crash-create")) crash();
  if (is(options, "hang-create")) hang();
  if (is(options, "exit")) _exit(0);
  TflDelegate* delegate = calloc(1, sizeof *delegate);
  delegate->data = options;
  delegate->Prepare = prepare;
  delegate->flags = TFL_ALLOW_DYNAMIC_TENSORS; /* else a custom operator is refused before we are asked */
  ++live;
  return delegate;
}

EXPORT void tflite_plugin_destroy_delegate(TflDelegate* delegate) {
  if (!delegate) return;
  --live;
  free(delegate->data);
  free(delegate);
}
