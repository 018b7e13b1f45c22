/* A stand-in for libcuda.so.1: streams that do everything at once, and graphs that cannot be captured. */
int cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = (void *)4096; return 0; }
int cuStreamSynchronize(void *stream) { (void)stream; return 0; }
int cuStreamDestroy_v2(void *stream) { (void)stream; return 0; }
int cuStreamBeginCapture_v2(void *stream, int mode) { (void)stream; (void)mode; return 900; }
int cuStreamEndCapture(void *stream, void **graph) { (void)stream; *graph = 0; return 900; }
int cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long flags)
{ (void)graph; (void)flags; *ready = 0; return 900; }
int cuGraphDestroy(void *graph) { (void)graph; return 0; }
int cuGraphLaunch(void *ready, void *stream) { (void)ready; (void)stream; return 900; }
int cuGraphExecDestroy(void *ready) { (void)ready; return 0; }
int cuGetErrorName(int status, const char **text) { (void)status; *text = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; return 0; }
