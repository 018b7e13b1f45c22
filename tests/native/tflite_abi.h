/* The part of TensorFlow Lite's C interface that an external delegate needs, declared from its documented layout
 * (tensorflow/lite/core/c/common.h, TFLite 2.14 and LiteRT 2.x; no runtime ships the header). Fields are only ever
 * added at the end there, so this prefix holds; the checks below pin it for 64-bit machines. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TFL_OK = 0, TFL_ERROR = 1 };     /* TfLiteStatus */
enum { TFL_FLOAT32 = 1, TFL_INT8 = 9 }; /* TfLiteType */
enum { TFL_ADD = 0, TFL_RELU = 19, TFL_CUSTOM = 32, TFL_DELEGATE = 51, TFL_FLOOR_MOD = 95 }; /* TfLiteBuiltinOperator */
enum { TFL_ACT_NONE = 0, TFL_ACT_RELU = 1, TFL_ACT_RELU6 = 3 }; /* TfLiteFusedActivation */
enum { TFL_ALLOW_DYNAMIC_TENSORS = 1 };                         /* TfLiteDelegateFlags */

typedef struct { int size; int data[]; } TflIntArray;
typedef struct { float scale; int32_t zero_point; } TflScale;
typedef struct { int type; void* params; } TflQuantization;

typedef struct TflContext TflContext;
typedef struct TflDelegate TflDelegate;

typedef struct {
  int type;
  void* data;
  TflIntArray* dims;
  TflScale scale;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  TflDelegate* delegate;
  int buffer_handle;
  bool data_is_stale, is_variable;
  TflQuantization quantization;
  void* sparsity;
  const TflIntArray* dims_signature;
} TflTensor;

typedef struct {
  TflIntArray *inputs, *outputs, *intermediates, *temporaries;
  void *user_data, *builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  TflDelegate* delegate;
} TflNode;

typedef struct {
  void* (*init)(TflContext*, const char*, size_t);
  void (*free)(TflContext*, void*);
  int (*prepare)(TflContext*, TflNode*);
  int (*invoke)(TflContext*, TflNode*);
  const char* (*profiling_string)(const TflContext*, const TflNode*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void *external, *async_kernel;
  uint64_t inplace;
  uint64_t zeros[8]; /* it is passed by value: room for what newer runtimes read behind the prefix */
} TflRegistration;

struct TflContext {
  size_t tensors_size;
  int (*GetExecutionPlan)(TflContext*, TflIntArray**);
  TflTensor* tensors;
  void* impl;
  int (*ResizeTensor)(TflContext*, TflTensor*, TflIntArray*);
  void (*ReportError)(TflContext*, const char*, ...);
  int (*AddTensors)(TflContext*, int, int*);
  int (*GetNodeAndRegistration)(TflContext*, int, TflNode**, TflRegistration**);
  int (*ReplaceNodeSubsetsWithDelegateKernels)(TflContext*, TflRegistration, const TflIntArray*, TflDelegate*);
};

struct TflDelegate {
  void* data;
  int (*Prepare)(TflContext*, TflDelegate*);
  void *CopyFromBufferHandle, *CopyToBufferHandle, *FreeBufferHandle;
  int64_t flags;
  void* opaque_builder;
  uint64_t zeros[8];
};

typedef struct {
  TflDelegate* delegate;
  TflIntArray *nodes_to_replace, *input_tensors, *output_tensors;
} TflDelegateParams;

_Static_assert(sizeof(void*) == 8, "declared for 64-bit machines");
_Static_assert(offsetof(TflTensor, dims) == 16 && offsetof(TflTensor, scale) == 24, "TfLiteTensor");
_Static_assert(offsetof(TflTensor, bytes) == 40 && offsetof(TflTensor, quantization) == 80, "TfLiteTensor");
_Static_assert(offsetof(TflNode, builtin_data) == 40 && offsetof(TflNode, delegate) == 64, "TfLiteNode");
_Static_assert(offsetof(TflRegistration, custom_name) == 48, "TfLiteRegistration");
_Static_assert(offsetof(TflRegistration, inplace) == 80, "TfLiteRegistration");
_Static_assert(offsetof(TflContext, GetNodeAndRegistration) == 56, "TfLiteContext");
_Static_assert(offsetof(TflDelegate, flags) == 40, "TfLiteDelegate");
