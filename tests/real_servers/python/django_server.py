from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from topics import REFUSAL, block, topics

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of no use")


async def events(request: HttpRequest, **names: str) -> StreamingHttpResponse:
    query = request.GET.dict()
    numbers = topics[query["key"]].numbers(query, request.headers.get("Last-Event-ID"))
    return StreamingHttpResponse((block(number, query) async for number in numbers), content_type="text/event-stream")


async def refusal(request: HttpRequest, **names: str) -> HttpResponse:
    return HttpResponse(REFUSAL, status=429, content_type="text/event-stream")


async def go(request: HttpRequest) -> HttpResponse:
    topics[request.GET["key"]].go()
    return HttpResponse()


async def state(request: HttpRequest) -> JsonResponse:
    return JsonResponse(topics[request.GET["key"]].state())


urlpatterns = [
    path("<server>/<mode>/events", events),
    path("<server>/<mode>/refusal", refusal),
    path("go", go),
    path("state", state),
]
application = get_asgi_application()
