/* What the Python bindings of TensorRT import from libnvinfer, libnvonnxparser and libnvinfer_plugin. The factories
   return nothing, as the real ones do without a driver, so that the bindings can be looked at where TensorRT is not. */
#include <stddef.h>

void *createInferBuilder_INTERNAL(void *log, int version) { (void)log; (void)version; return NULL; }
void *createInferRefitter_INTERNAL(void *engine, void *log, int version)
{ (void)engine; (void)log; (void)version; return NULL; }
void *createInferRuntime_INTERNAL(void *log, int version) { (void)log; (void)version; return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *log, int version)
{ (void)refitter; (void)log; (void)version; return NULL; }
void *createNvOnnxParser_INTERNAL(void *network, void *log, int version)
{ (void)network; (void)log; (void)version; return NULL; }
void *getBuilderPluginRegistry(int capability) { (void)capability; return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
void *getPluginRegistry(void) { return NULL; }
int initLibNvInferPlugins(void *log, const char *space) { (void)log; (void)space; return 1; }
